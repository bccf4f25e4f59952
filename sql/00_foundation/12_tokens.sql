-- [state] One-time tokens: the secrets in links that are sent to persons.
-- GDPR Art. 32(1)(b). Written by create_token() and take_token() alone; what a token opens, its kind says.

set local role gdpr_owner;

create table gdpr_internal.token (
  digest bytea primary key,
  kind text not null,
  reference bigint not null,
  subject_id bigint,
  valid_until timestamptz not null,
  used_at timestamptz
);
create index token_reference on gdpr_internal.token (reference, kind);
create index token_subject on gdpr_internal.token (subject_id);
comment on table gdpr_internal.token is
  'One-time tokens, as SHA-256 digests: 256 random bits need no salt. reference: the request or registration that the token was made for; kind says which. used_at: it can be taken no more, and only shows who its bearer is.';
