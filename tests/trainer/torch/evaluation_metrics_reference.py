"""Metrics of scikit-learn for evaluation_test.cpp: JSON in (labels, gold, predicted), JSON on stdout."""
import json
import sys

from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

case = json.load(open(sys.argv[1]))
labels, gold, predicted = list(range(case["labels"])), case["gold"], case["predicted"]
occurring = sorted((set(gold) | set(predicted)) - {-1})
precision, recall, f1, support = precision_recall_fscore_support(gold, predicted, labels=labels, zero_division=0)
matrix = confusion_matrix(gold, predicted, labels=labels + [-1])
print(json.dumps({
    "accuracy": accuracy_score(gold, predicted),
    "macro_f1": f1_score(gold, predicted, labels=occurring, average="macro", zero_division=0),
    "precision": list(precision), "recall": list(recall), "f1": list(f1), "support": [int(n) for n in support],
    "confusion": matrix[:-1].tolist(),
}))
