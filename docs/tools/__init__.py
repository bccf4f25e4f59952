"""What writes the parts of the documentation that a machine knows better than people.

`docs/build.py` puts them into the pages; tests/docs checks that the pages are what running gives.
"""
