"""Who is in the story."""

from __future__ import annotations

from gdprdb.demo.story import Actor

APP = Actor("crm_app", "the CRM application", "green", "gdpr_clear, crm", unlocks=True)
BI = Actor("metabase", "the BI tool", "cyan", "gdpr_bi, crm")
MAILER = Actor("mailer", "the newsletter tool", "dark_orange3", "gdpr_clear, crm", unlocks=True)
WEBSITE = Actor("website", "the web site, a portal", "bright_green", "public", unlocks=True)
POSTMAN = Actor("postman", "the sender of mails", "bright_magenta", "public", unlocks=True)
OWNER = Actor("crm_owner", "the DBA, who owns the tables", "magenta", "crm", unlocks=True)
DPO = Actor("dpo", "the data protection officer", "blue", "crm", unlocks=True)
DEPUTY = Actor("deputy", "the officer's deputy", "bright_cyan", "crm", unlocks=True)
AUDITOR = Actor("auditor", "the auditor", "bright_blue", "crm")
HOST = Actor("postgres", "the hosting provider, superuser", "red", "crm")

CAST = (APP, MAILER, WEBSITE, POSTMAN, BI, OWNER, DPO, DEPUTY, AUDITOR, HOST)
