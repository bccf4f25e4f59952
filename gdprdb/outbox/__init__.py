"""Sending the mails that wait in the database.

`compose` turns what the database hands out into a message, from templates;
`smtp` speaks to the mail server and tells failures that pass from those that
stay; `sender` takes mails, sends them and reports what came of it.
"""
