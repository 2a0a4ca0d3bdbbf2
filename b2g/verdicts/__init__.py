"""Verdicts: each claim of the paper (data/claims.yml), judged from records, printed cells and the theory by
tests that were written before the runs.

`claims` reads and judges, `evidence` finds the runs that count, `judgement` holds the rules; the tests stand
in `comparisons`, `fits`, `cells`, `theorems` and `arguments`; `listing` shows the outcome.
"""
