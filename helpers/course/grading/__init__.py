"""Grading: from what students hand in to a gradebook. CONTRIBUTING.md says which module does what."""
