"""For instructors and maintainers: `python -m helpers.course` lists the commands.

Students never import this package, and nothing else in `helpers` does either.
"""
