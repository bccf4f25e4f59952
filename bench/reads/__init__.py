"""Reading at size: by key and by e-mail, with one client and with four, at two sizes."""
