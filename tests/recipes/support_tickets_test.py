#!/usr/bin/env python3
"""The support-ticket data set keeps what its README promises: size, queues, split, no copies, no leak from training into test.

    tests/recipes/support_tickets_test.py [FOLDER]        (default: recipes/data/support_tickets of this tree)

Words are runs of letters and digits after NFKC and case folding; two tickets are near-duplicates when the Jaccard similarity of their
sets of five successive words is above 0.5 (a ticket of fewer than five words is one shingle). Needs only Python's own library.
"""
import json
import pathlib
import re
import statistics
import sys
import unicodedata
import unittest
from collections import Counter, defaultdict

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "recipes/data/support_tickets"
QUEUES = {"account_access", "billing", "complaints", "order_changes", "privacy", "product_question", "refunds", "returns", "shipping",
          "subscription", "technical_support", "warranty"}
MOST_ALIKE = 0.5


def words(text):
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def shingles(text):
    found = words(text)
    return {tuple(found[at:at + 5]) for at in range(len(found) - 4)} or {tuple(found)}


def similar_pairs(texts):
    """{(i, j): Jaccard} for all pairs i < j that share at least one shingle; pairs absent here have similarity 0."""
    sets = [shingles(text) for text in texts]
    holders, shared = defaultdict(list), Counter()
    for index, own in enumerate(sets):
        for shingle in own:
            for other in holders[shingle]:
                shared[other, index] += 1
            holders[shingle].append(index)
    return {(i, j): count / (len(sets[i]) + len(sets[j]) - count) for (i, j), count in shared.items()}


class SupportTickets(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.parts = {}
        for part in ("train", "test"):
            with open(FOLDER / f"{part}.jsonl", encoding="utf-8") as file:
                cls.parts[part] = [json.loads(line) for line in file]
        cls.rows = cls.parts["train"] + cls.parts["test"]
        cls.pairs = similar_pairs([row["text"] for row in cls.rows])

    def test_every_row_is_a_text_and_one_of_twelve_queues(self):
        for part, rows in self.parts.items():
            for line, row in enumerate(rows, 1):
                self.assertEqual(list(row), ["text", "queue"], f"{part}.jsonl:{line}")
                self.assertIn(row["queue"], QUEUES, f"{part}.jsonl:{line}")
                self.assertTrue(words(row["text"]), f"{part}.jsonl:{line}: no word in it")

    def test_size_and_split(self):
        self.assertGreaterEqual(len(self.rows), 1000)
        total = Counter(row["queue"] for row in self.rows)
        tested = Counter(row["queue"] for row in self.parts["test"])
        self.assertEqual(set(total), QUEUES)
        share = 100 * len(self.parts["test"]) / len(self.rows)
        lengths = [len(row["text"].split()) for row in self.rows]
        print(f"{len(self.rows)} tickets in {len(total)} queues, {len(self.parts['test'])} of them test ({share:.1f} %); "
              f"words: {min(lengths)} to {max(lengths)}, median {statistics.median(lengths):.0f}")
        for queue in sorted(total):
            print(f"  {queue:<20}{total[queue] - tested[queue]:>5} train{tested[queue]:>5} test")
            self.assertAlmostEqual(100 * tested[queue] / total[queue], 20, delta=1, msg=queue)
        self.assertAlmostEqual(share, 20, delta=1)

    def test_no_text_stands_twice(self):
        seen = {}
        for row in self.rows:
            text = " ".join(words(row["text"]))
            self.assertNotIn(text, seen, f"twice, as {seen.get(text)} and {row['queue']}")
            seen[text] = row["queue"]

    def test_near_duplicates_stay_under_three_per_cent(self):
        alike = {index for pair, similarity in self.pairs.items() if similarity > MOST_ALIKE for index in pair}
        share = 100 * len(alike) / len(self.rows)
        print(f"near-duplicates: {len(alike)} tickets ({share:.2f} %)")
        self.assertLess(share, 3)

    def test_no_test_ticket_resembles_a_training_ticket(self):
        first_test = len(self.parts["train"])
        across = {pair: similarity for pair, similarity in self.pairs.items() if pair[0] < first_test <= pair[1]}
        most, (train, test) = max((similarity, pair) for pair, similarity in across.items()) if across else (0.0, (0, first_test))
        print(f"most alike across the split: Jaccard {most:.3f}")
        self.assertLessEqual(most, MOST_ALIKE, f"{self.rows[train]['text']!r} (train) and {self.rows[test]['text']!r} (test)")

    def test_no_address_outside_the_domains_reserved_for_examples(self):
        for row in self.rows:
            for domain in re.findall(r"[\w.+-]+@([\w.-]+\w)", row["text"]):
                self.assertRegex(domain, r"(^|\.)example\.(com|org|net)$")


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        FOLDER = pathlib.Path(sys.argv.pop(1))
    unittest.main(verbosity=2)
