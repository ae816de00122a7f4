"""Selections of a pool by several strategies -> EVIDENCE: what each is worth by what none of them optimises."""
