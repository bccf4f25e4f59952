"""Answers to persons who ask what is stored about them: as JSON, as tables, as a letter, in a ZIP.

`document` reads a report from the database, page by page; `sheets` writes its tables as CSV,
`letter` the whole as HTML in the person's language, `archive` all three as one ZIP. Everything
is written as it is read: neither this program nor a disk ever holds the whole.
"""
