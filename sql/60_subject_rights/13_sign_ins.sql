-- [state] How often the portal is used: when a mailbox was last sent a link, how many reports a person had.
-- GDPR Art. 12(2), Art. 12(5), Art. 32(1)(b). Written by gdpr.portal_request_sign_in(), for addresses known and unknown, and by the reports.

set local role gdpr_owner;

create table gdpr_internal.sign_in_mail (
  mailbox uuid primary key,
  mailed_at timestamptz not null
);
create index sign_in_mail_mailed_at on gdpr_internal.sign_in_mail (mailed_at);
comment on table gdpr_internal.sign_in_mail is
  'When somebody last asked for a link to the portal under an address (keyed digest without its plus-tag): one mail for each interval. Nobody can tell from it who is known. Deleted by gdpr.tidy_tokens() once of no effect.';

create table gdpr_internal.portal_reading (
  subject_id bigint primary key,
  since timestamptz not null,
  readings integer not null
);
create index portal_reading_since on gdpr_internal.portal_reading (since);
comment on table gdpr_internal.portal_reading is
  'How many reports a person had through the portal in the hour that began at since: a session that fell into other hands, or a page that asks again and again, does not keep the server busy. Deleted by gdpr.tidy_tokens() once of no effect.';
