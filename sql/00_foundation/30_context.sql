-- [code] Who and why: the context of a statement, and the purposes that a role may process for.
-- GDPR Art. 5(1)(b), Art. 29, Art. 32(4). A setting is a claim of the caller: it can narrow what the role may do, never widen it.

set local role gdpr_owner;

create or replace function gdpr_internal.context_setting(p_name text)
returns text
language sql
stable
parallel restricted
security invoker
-- no SET clause: inlined into its callers; every name is qualified by its bound body
begin atomic
  select nullif(current_setting('gdpr.' || p_name, true), '');
end;
comment on function gdpr_internal.context_setting(text) is
  'A gdpr.* setting, or null. After a transaction a custom setting is an empty string, which means the same as unset.';

create or replace function gdpr_internal.is_misshaped(p_source jsonb)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  return p_source ->> 'ip' !~ '^[0-9A-Fa-f:.]{2,45}$' or p_source ->> 'line' !~ '^[1-9][0-9]{0,17}$'
    or p_source ->> 'url' !~ '^https?://' or p_source ->> 'referrer' !~ '^https?://';
end
$function$;
comment on function gdpr_internal.is_misshaped(jsonb) is 'Whether the ip, line, url or referrer of a source is none.';

create or replace function gdpr_internal.check_source(p_source jsonb)
returns void
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- asked for every row that comes with a source: a constant and not branches, no loop over its keys, and what most do not have apart
  if jsonb_typeof(p_source) is distinct from 'object' or coalesce(
    p_source - string_to_array('{
      "web_form": "kind note language form url ip referrer user_agent",
      "import": "kind note language file line",
      "manual": "kind note language user reason",
      "api": "kind note language service ip user_agent",
      "integration": "kind note language system record",
      "migration": "kind note language file system record"
    }'::jsonb ->> (p_source ->> 'kind'), ' ') <> '{}', true
  ) or p_source ?| array['ip', 'line', 'url', 'referrer'] and gdpr_internal.is_misshaped(p_source) then
    perform gdpr_internal.refuse(
      'invalid_argument',
      'a source is {"kind": "web_form", "form", "url", "ip", "referrer", "user_agent"}, {"kind": "import", "file", "line"}, '
      '{"kind": "manual", "user", "reason"}, {"kind": "api", "service", "ip", "user_agent"}, {"kind": "integration", "system", "record"} '
      'or {"kind": "migration", "file", "system", "record"}, each with "note" and "language" if need be'
    );
  end if;
end
$function$;
comment on function gdpr_internal.check_source(jsonb) is 'Refuses what is no source: an unknown kind, a detail that its kind does not have, an ip, line or url that is none. Error: PR004.';

create or replace function gdpr_internal.context_source()
returns jsonb
language plpgsql
stable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_text text := nullif(current_setting('gdpr.source', true), '');
  v_source jsonb;
begin
  if v_text is null then
    return null;
  end if;
  begin
    v_source := v_text::jsonb;
  exception when data_exception then
    v_source := 'null';
  end;
  -- these are evidence, which gdpr.confirm() alone gives
  if not v_source ? 'registration' or not gdpr_internal.confirming() then
    perform gdpr_internal.check_source(v_source);
  end if;
  return v_source;
end
$function$;
comment on function gdpr_internal.context_source() is 'The source that the session claims for new data, or null. Error: PR004 no JSON object with a known kind.';

create or replace function gdpr_internal.acting_role()
returns name
language sql
stable
parallel restricted
security invoker
begin atomic
  select coalesce(nullif(current_setting('role'), 'none')::name, session_user);
end;
comment on function gdpr_internal.acting_role() is
  'The role the session acts as. Inside definer functions current_user is the definer; SET ROLE and the login still tell.';

create or replace function gdpr_internal.purpose_inherited(p_role name, p_claim text)
returns smallint
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
-- asked for each audit record: planning takes five times as long as the answer
set plan_cache_mode = force_generic_plan
as $function$
declare
  v_purpose smallint;
begin
  select rp.purpose_id
  into v_purpose
  from gdpr_internal.role_purpose as rp
  join gdpr_internal.purpose as p on p.id = rp.purpose_id
  where (rp.role_name = p_role or pg_has_role(p_role, to_regrole(quote_ident(rp.role_name))::oid, 'usage'))
    and (p_claim is null or p.name = p_claim)
    -- what these read leaves the house, and is recorded: no statement of theirs passes the gate
    and not exists (select from gdpr_internal.role_binding as b where b.role_name = rp.role_name and b.recipient is not null)
  order by (rp.role_name <> p_role), rp.position, rp.purpose_id
  limit 1;
  return v_purpose;
end
$function$;
comment on function gdpr_internal.purpose_inherited(name, text) is
  'The purpose that p_role works for, its memberships counted: the one it claims if it holds it, its first one if it claims none, else null.';

create or replace function gdpr_generated.define(p_code text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_mark text := E'\nas $' || E'body$\n';
  v_start integer := strpos(p_code, v_mark);
  v_body text := rtrim(substr(p_code, v_start + length(v_mark)), E'\n');
begin
  -- names of tables, columns and roles stand in the body: a literal holds them, a dollar quote could be closed by one
  execute ltrim(left(p_code, v_start), E'\n') || 'as ' || quote_literal(left(v_body, length(v_body) - 6));
end
$function$;
comment on function gdpr_generated.define(text) is 'Creates a generated function from its text, as the role that generates it.';

create or replace function gdpr_internal.clear_inherited(p_role name)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return exists (
    select
    from gdpr_internal.role_binding as b
    where (b.role_name = p_role or pg_has_role(p_role, to_regrole(quote_ident(b.role_name))::oid, 'usage'))
      and b.audience = 'clear'
  );
end
$function$;
comment on function gdpr_internal.clear_inherited(name) is
  'Whether this database binds a role, or one it is a member of, to audience clear. Groups do not tell: they belong to the whole server.';

create or replace function gdpr_internal.generate_purposes()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_clear text;
  v_held jsonb;
  v_masks jsonb;
begin
  perform gdpr_internal.generate_home();
  -- SQL bodies bound here: the planner puts them into the statements that row policies guard, whatever search_path those have
  select string_agg(quote_literal(b.role_name), ', ' order by b.role_name) into v_clear
  from gdpr_internal.role_binding as b
  where b.audience = 'clear';
  execute format(
    'create or replace function gdpr_generated.is_clear(p_role name) returns boolean language sql stable parallel restricted security invoker '
    'begin atomic select p_role in (%s); end',
    v_clear
  );
  comment on function gdpr_generated.is_clear(name) is 'Whether a role is bound to audience clear by its own name. Generated by gdpr.apply().';
  -- a constant and not branches: what a statement has to prepare does not grow with the roles
  select jsonb_object_agg(r.role_name, r.masks) into v_masks
  from (
    select rp.role_name,
      jsonb_build_object('', 1::bigint << (array_agg(rp.purpose_id order by rp.position))[1])
        || jsonb_object_agg(p.name, 1::bigint << rp.purpose_id) as masks
    from gdpr_internal.role_purpose as rp
    join gdpr_internal.purpose as p on p.id = rp.purpose_id
    where rp.purpose_id < 62
      and not exists (select from gdpr_internal.role_binding as b where b.role_name = rp.role_name and b.recipient is not null)
      -- maintenance leaves a record: those roles take the long way
      and not exists (select from gdpr_internal.role_purpose as m where m.role_name = rp.role_name and m.purpose_id >= 62)
    group by rp.role_name
  ) as r;
  execute format(
    'create or replace function gdpr_generated.purpose_mask(p_role name, p_claim text) returns bigint language sql stable parallel restricted '
    'security invoker begin atomic select case when p_role = ''gdpr_worker'' then %s '
    'else coalesce(case when gdpr_generated.is_home() then (%L::jsonb #>> array[p_role::text, coalesce(p_claim, '''')])::bigint end, '
    'gdpr_policy.purpose_mask(p_role, p_claim)) end; end',
    1::bigint << 62, coalesce(v_masks, '{}')
  );
  comment on function gdpr_generated.purpose_mask(name, text) is
    'The bit of the gate that a statement of a role may pass: the bindings of the policy as code, because every statement asks. Generated by gdpr.apply().';
  grant execute on function gdpr_generated.is_clear(name), gdpr_generated.purpose_mask(name, text) to public;
  -- a constant and not branches: what a statement has to prepare does not grow with the roles
  select jsonb_object_agg(r.role_name, r.ids) into v_held
  from (
    select rp.role_name,
      jsonb_build_object('', (array_agg(rp.purpose_id order by rp.position))[1]) || jsonb_object_agg(p.name, rp.purpose_id) as ids
    from gdpr_internal.role_purpose as rp
    join gdpr_internal.purpose as p on p.id = rp.purpose_id
    where rp.role_name <> 'gdpr_worker'
      and not exists (select from gdpr_internal.role_binding as b where b.role_name = rp.role_name and b.recipient is not null)
    group by rp.role_name
  ) as r;
  execute format(
    'create or replace function gdpr_generated.purpose_held(p_role name, p_claim text) returns smallint language sql stable parallel restricted '
    'security invoker begin atomic select coalesce((%L::jsonb -> p_role::text ->> coalesce(p_claim, ''''))::smallint, '
    'gdpr_internal.purpose_inherited(p_role, p_claim)); end',
    coalesce(v_held, '{}')
  );
  comment on function gdpr_generated.purpose_held(name, text) is
    'The purpose a role works for, or null: the bindings of the policy as code, because every statement asks. Generated by gdpr.apply().';
  grant execute on function gdpr_generated.purpose_held(name, text) to gdpr_keyholder;
end
$function$;
comment on function gdpr_internal.generate_purposes() is 'Generates gdpr_generated.purpose_held(), purpose_mask() and is_clear() from the bindings of roles, and is_home().';

create or replace function gdpr_internal.export_binding(p_role name)
returns name
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select b.role_name
    from gdpr_internal.role_binding as b
    where b.recipient is not null
      and (b.role_name = p_role or pg_has_role(p_role, to_regrole(quote_ident(b.role_name))::oid, 'usage'))
    order by (b.role_name <> p_role), b.role_name
    limit 1
  );
end
$function$;
comment on function gdpr_internal.export_binding(name) is
  'The binding of a role, or of one it is a member of, that names a recipient, else null.';

create or replace function gdpr_policy.purpose_mask(p_role name, p_claim text)
returns bigint
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint;
begin
  if p_role = 'gdpr_worker' then
    -- gdprdb's own functions: the claim in the setting is not theirs
    return 1::bigint << 62;
  end if;
  v_purpose := gdpr_generated.purpose_held(p_role, nullif(p_claim, ''));
  if v_purpose < 62 then
    if not gdpr_generated.is_home() and gdpr.whereabouts() = 'restored' then
      perform gdpr_internal.refuse('restored');
    end if;
    return 1::bigint << v_purpose;
  end if;
  if v_purpose is null then
    if p_role = gdpr_internal.acting_role() and gdpr_internal.confirming() then
      return 1::bigint << 62;
    end if;
    perform gdpr_internal.refuse(
      case
        when gdpr_internal.export_binding(p_role) is not null then 'export_only'
        when nullif(p_claim, '') is null then 'no_purpose'
        else 'purpose_not_held'
      end,
      format('role %s', quote_ident(p_role))
    );
  end if;
  if v_purpose = 63 then
    perform gdpr_internal.note_maintenance();
  end if;
  return 1::bigint << 62;
end
$function$;
comment on function gdpr_policy.purpose_mask(name, text) is
  'The bit of the gate that a statement of p_role may pass (p_claim: setting gdpr.purpose). Once per statement, as an InitPlan of the row policies. Errors: gdpr_no_purpose, gdpr_purpose_not_held, gdpr_export_only (42501), PR640 restored from a backup. Art. 5(1)(b).';

create or replace function gdpr.purpose_bit()
returns bigint
language sql
stable
parallel restricted
security invoker
begin atomic
  select gdpr_policy.purpose_mask(current_user, current_setting('gdpr.purpose', true));
end;
comment on function gdpr.purpose_bit() is 'The bit of the purpose this statement works for (bit 62: compliance and maintenance).';

create or replace function gdpr_internal.check_context(p_role name, p_purpose text, p_source jsonb)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if p_purpose is not null then
    perform gdpr_policy.purpose_mask(p_role, p_purpose);
  end if;
  if p_source is not null then
    perform set_config('gdpr.source', p_source::text, true);
    perform gdpr_internal.context_source();
  end if;
  return true;
end
$function$;
comment on function gdpr_internal.check_context(name, text, jsonb) is 'Refuses a purpose that the role does not hold and a source of unknown kind.';

create or replace function gdpr.set_context(
  p_actor text default null,
  p_purpose text default null,
  p_source jsonb default null,
  p_request text default null
)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.check_context(current_user, p_purpose, p_source);
  select
    set_config('gdpr.actor', coalesce(p_actor, ''), true),
    set_config('gdpr.purpose', coalesce(p_purpose, ''), true),
    set_config('gdpr.source', coalesce(p_source::text, ''), true),
    set_config('gdpr.request', coalesce(p_request, ''), true);
end;
comment on function gdpr.set_context(text, text, jsonb, text) is
  'Says, for this transaction, who acts (actor: end user, free text), for which purpose (one the role holds), where new data comes from (source: {"kind": "web_form", "form", "url", "ip", "referrer", "user_agent"}, {"kind": "import", "file", "line"}, {"kind": "manual", "user", "reason"}, {"kind": "api", "service", "ip", "user_agent"}, {"kind": "integration", "system", "record"} or {"kind": "migration", "file", "system", "record"}; all details optional) and in which request. Errors: 42501 purpose not held, PR004 no such source. Art. 5(1)(b), Art. 13, 14.';

create or replace function gdpr_policy.refuse_base(p_role name)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if gdpr_internal.clear_inherited(p_role) then
    return true;
  end if;
  return gdpr_internal.refuse(
    case
      when gdpr_internal.export_binding(p_role) is not null then 'export_only'
      when gdpr_generated.purpose_held(p_role, null) is null then 'no_purpose'
      else 'base_refused'
    end,
    format('role %s', quote_ident(p_role))
  );
end
$function$;
comment on function gdpr_policy.refuse_base(name) is
  'Lets roles of audience clear touch a protected table itself, tells every other role why not. Errors: gdpr_no_purpose, gdpr_base_refused (42501).';

create or replace function gdpr_internal.purpose_id(p_name text)
returns smallint
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint;
begin
  select p.id into v_id from gdpr_internal.purpose as p where p.name = p_name;
  if v_id is null then
    perform gdpr_internal.refuse('unknown_purpose');
  end if;
  return v_id;
end
$function$;
comment on function gdpr_internal.purpose_id(text) is 'The number of a purpose. Error: PR003 unknown purpose.';

create or replace function gdpr_internal.require_read_committed()
returns void
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform gdpr_internal.refuse('needs_read_committed');
  end if;
end
$function$;
comment on function gdpr_internal.require_read_committed() is
  'Refuses to lock data under an older snapshot: rows that other sessions inserted meanwhile would keep the old gate.';

create or replace function gdpr.text_of(p_value anyelement)
returns text
language plpgsql
immutable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 3
set bytea_output = 'hex'
as $function$
begin
  -- format() calls the output function; a cast could be one that the owner of the type planted
  return format('%s', p_value);
end
$function$;
comment on function gdpr.text_of(anyelement) is 'A value as text that means the same in every session: ISO dates in UTC, shortest exact floats, hexadecimal bytea.';

create or replace function gdpr.equal_text(p_value anyelement)
returns text
language plpgsql
stable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
declare
  v_type oid := pg_typeof(p_value);
  v_base oid;
  v_text text := gdpr.text_of(p_value);
begin
  loop
    v_base := (select y.typbasetype from pg_type as y where y.oid = v_type);
    exit when v_base = 0;
    v_type := v_base;
  end loop;
  return case v_type
    when 'numeric'::regtype then trim_scale(v_text::numeric)::text
    when 'interval'::regtype then gdpr.text_of(justify_interval(v_text::interval))
    when 'real'::regtype then case v_text when '-0' then '0' else v_text end
    when 'double precision'::regtype then case v_text when '-0' then '0' else v_text end
    when 'boolean'::regtype then v_text::boolean::text
    when 'inet'::regtype then v_text::inet::text
    when 'bpchar'::regtype then rtrim(v_text, ' ')
    else v_text
  end;
end
$function$;
comment on function gdpr.equal_text(anyelement) is
  'The text of which the digest of a value is made: one for equal values of a type that writes them in several ways (1.5 and 1.50, a day and 24 hours, 0 and -0).';
