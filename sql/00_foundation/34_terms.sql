-- [code] The terms of the law that policies and records use, each named once.
-- GDPR Art. 6(1), Art. 9(1), 9(2). The words are those of the W3C Data Privacy Vocabulary where it has them.

set local role gdpr_owner;

create or replace function gdpr_internal.grounds()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array['contract', 'legal_obligation', 'vital_interests', 'public_task', 'legitimate_interests'];
end;
comment on function gdpr_internal.grounds() is 'The lawful bases of Art. 6(1) other than consent.';

create or replace function gdpr_internal.special_kinds()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array[
    'racial_or_ethnic_origin', 'political_opinion', 'religious_or_philosophical_belief', 'trade_union_membership', 'genetic', 'biometric',
    'health', 'sex_life', 'sexual_orientation'
  ];
end;
comment on function gdpr_internal.special_kinds() is 'The special categories of personal data of Art. 9(1).';

create or replace function gdpr_internal.special_conditions()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array[
    'explicit_consent', 'employment_law', 'vital_interests', 'not_for_profit', 'made_public', 'legal_claims', 'public_interest', 'health_care',
    'public_health', 'archiving'
  ];
end;
comment on function gdpr_internal.special_conditions() is 'The conditions of Art. 9(2), (a) to (j), under which special categories may be processed.';

create or replace function gdpr_internal.audiences()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array['bi', 'export', 'api', 'integration'];
end;
comment on function gdpr_internal.audiences() is 'The audiences of redacted views: each has a schema and a group, both named gdpr_<audience>.';

create or replace function gdpr_internal.outgoing_audiences()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array['export', 'api', 'integration'];
end;
comment on function gdpr_internal.outgoing_audiences() is 'The audiences through which data leave for recipients (Art. 4(9)).';

create or replace function gdpr_internal.view_schemas()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array['gdpr_clear'] || array(select 'gdpr_' || a from unnest(gdpr_internal.audiences()) as a);
end;
comment on function gdpr_internal.view_schemas() is 'The schemas of the views that are generated for protected tables.';
