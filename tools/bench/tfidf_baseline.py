#!/usr/bin/env python3
"""The classical baseline a routing fine-tune has to beat: TF-IDF of words and of characters, and logistic regression.

    tools/bench/tfidf_baseline.py TRAIN TEST [--text text] [--label queue] [--folds 5] [--confusions 12]

TRAIN and TEST are JSONL, CSV or TSV (by their endings) with a text and a label column. The settings are chosen by stratified
cross-validation on TRAIN alone; TEST is scored once, with the settings that won. Every seed is fixed. The last line on stdout is JSON:
{"baseline", "train_rows", "test_rows", "labels", "chosen", "cross_validated_accuracy", "accuracy", "macro_f1"}.
"""
import argparse
import csv
import json
import pathlib
import sys
from collections import Counter

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, Pipeline

SEED = 0


def read_rows(path, text_key, label_key):
    """(texts, labels) of a file; stops with file and line where a row lacks a column."""
    with open(path, encoding="utf-8", newline="") as file:
        if path.suffix in (".csv", ".tsv"):
            rows = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
            first_line = 2
        else:
            rows = [json.loads(line) for line in file]
            first_line = 1
    for line, row in enumerate(rows, first_line):
        for key in (text_key, label_key):
            if not row.get(key):
                sys.exit(f"[graft.bench] expected a column '{key}' in every row, got {sorted(row)} ({path}:{line}) — name the columns"
                         " with --text and --label")
    return [row[text_key] for row in rows], [str(row[label_key]) for row in rows]


def search(folds):
    """The grid: which n-grams, and how strong the regularisation. Words alone are tried too, so that characters must earn their place."""
    features = FeatureUnion([
        ("words", TfidfVectorizer(sublinear_tf=True, strip_accents="unicode", token_pattern=r"(?u)\b\w+\b")),
        ("characters", TfidfVectorizer(sublinear_tf=True, strip_accents="unicode", analyzer="char_wb")),
    ])
    # One against the rest in the dual: as accurate here as the multinomial form, and several times as fast: features outnumber rows.
    classifier = OneVsRestClassifier(LogisticRegression(solver="liblinear", dual=True, max_iter=1000, random_state=SEED))
    words = {"features__words__ngram_range": [(1, 1), (1, 2)], "classifier__estimator__C": [10.0, 30.0]}
    grid = [{**words, "features__characters": ["drop"]}, {**words, "features__characters__ngram_range": [(2, 5), (3, 5)]}]
    return GridSearchCV(Pipeline([("features", features), ("classifier", classifier)]), grid, scoring="accuracy", n_jobs=1,
                        cv=StratifiedKFold(folds, shuffle=True, random_state=SEED))


def describe(parameters):
    words = parameters["features__words__ngram_range"]
    characters = parameters.get("features__characters__ngram_range")
    return {"words": list(words), "characters": list(characters) if characters else None, "C": parameters["classifier__estimator__C"]}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("train", type=pathlib.Path)
    options.add_argument("test", type=pathlib.Path)
    options.add_argument("--text", default="text", help="column of the text (default: text)")
    options.add_argument("--label", default="queue", help="column of the label (default: queue)")
    options.add_argument("--folds", type=int, default=5, help="folds of the cross-validation on TRAIN (default: 5)")
    options.add_argument("--confusions", type=int, default=12, help="how many confused pairs to list (default: 12)")
    arguments = options.parse_args()

    train_texts, train_labels = read_rows(arguments.train, arguments.text, arguments.label)
    test_texts, test_labels = read_rows(arguments.test, arguments.text, arguments.label)
    model = search(arguments.folds).fit(train_texts, train_labels)
    predictions = model.predict(test_texts)

    print(f"{'label':<22}{'rows':>6}{'recall':>9}{'precision':>11}")
    right = Counter(truth for truth, guess in zip(test_labels, predictions) if truth == guess)
    rows, guesses = Counter(test_labels), Counter(predictions)
    for label in sorted(rows):
        precision = f"{right[label] / guesses[label]:.1%}" if guesses[label] else "-"
        print(f"{label:<22}{rows[label]:>6}{right[label] / rows[label]:>9.1%}{precision:>11}")
    confusions = Counter((truth, guess) for truth, guess in zip(test_labels, predictions) if truth != guess)
    for (truth, guess), count in confusions.most_common(arguments.confusions):
        print(f"{count:>3} x {truth} taken for {guess}")
    print(json.dumps({
        "baseline": "tfidf+logistic_regression", "train_rows": len(train_texts), "test_rows": len(test_texts),
        "labels": len(set(train_labels)), "chosen": describe(model.best_params_),
        "cross_validated_accuracy": round(float(model.best_score_), 4),
        "accuracy": round(float(accuracy_score(test_labels, predictions)), 4),
        "macro_f1": round(float(f1_score(test_labels, predictions, average="macro")), 4)}))


if __name__ == "__main__":
    main()
