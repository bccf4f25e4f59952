-- [state] When a mailbox was last sent a link to the portal.
-- GDPR Art. 12(2), Art. 32(1)(b). Written by gdpr.portal_request_sign_in() alone, for addresses known and unknown.

set local role gdpr_owner;

create table gdpr_internal.sign_in_mail (
  mailbox uuid primary key,
  mailed_at timestamptz not null
);
create index sign_in_mail_mailed_at on gdpr_internal.sign_in_mail (mailed_at);
comment on table gdpr_internal.sign_in_mail is
  'When somebody last asked for a link to the portal under an address (keyed digest without its plus-tag): one mail for each interval. Nobody can tell from it who is known. Deleted by gdpr.tidy_tokens() once of no effect.';
