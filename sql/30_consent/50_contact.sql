-- [code] Whether a person may be contacted by a channel.
-- GDPR Art. 6(1)(a), Art. 7; ePrivacy Directive Art. 13. Called by: applications, before they write or ring.

set local role gdpr_owner;

create or replace function gdpr_internal.may_contact(p_subject bigint, p_channel text, p_purpose text, p_role name)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.purpose_id(p_purpose);
begin
  perform gdpr_internal.require_home();
  perform gdpr_internal.known_channels(array[p_channel]);
  if gdpr_generated.purpose_held(p_role, p_purpose) is null
    and coalesce(gdpr_generated.purpose_held(p_role, null) < 62, true)
  then
    perform gdpr_internal.refuse('purpose_not_held', format('role %s', quote_ident(p_role)));
  end if;
  return gdpr_internal.still_allowed(p_subject, 1::bigint << v_purpose) and (
    exists (
      select from gdpr_internal.consent_state as c
      where c.subject_id = p_subject and c.purpose_id = v_purpose and c.status = 'granted' and p_channel = any (c.contact)
    )
    or exists (
      select from gdpr.basis as b
      where b.subject_id = p_subject and b.purpose = p_purpose and b.holds and b.basis <> 'undetermined'
    )
  );
end
$function$;
comment on function gdpr_internal.may_contact(bigint, text, text, name) is 'See gdpr.may_contact(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr.may_contact(p_subject bigint, p_channel text, p_purpose text)
returns boolean
language sql
stable
parallel restricted
security invoker
begin atomic
  select gdpr_internal.may_contact(p_subject, p_channel, p_purpose, current_user);
end;
comment on function gdpr.may_contact(bigint, text, text) is
  'Whether a person may be contacted by a channel (mail, phone, post, social) for a purpose at this very statement: the purpose is open for the person, and either rests on a basis other than consent, or on a consent that names the channel. False while an answer is waited for. For roles that hold the purpose, and for gdpr_dpo. Errors: PR003, PR004, 42501 the role does not hold the purpose. Art. 7.';
