"""Small, typed helpers for the labs of "Where Does It Look?".

Nothing is imported here on purpose: torch and TensorFlow must never meet in one process, and a notebook
should load only what it uses.
"""
