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
