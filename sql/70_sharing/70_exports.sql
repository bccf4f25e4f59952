-- [code] Exports: rows that leave for a recipient, and the record of it, in one statement.
-- GDPR Art. 5(2), 15(1)(c), 19, 30(1)(d). Called by: roles of audience export, api or integration; gdpr_dpo; gdprdb share export.
-- A SELECT cannot write: a role that is bound to a recipient therefore reads no view, but calls this.

set local role gdpr_owner;

create or replace function gdpr_internal.exporter(p_role name)
returns gdpr_internal.role_binding
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_binding gdpr_internal.role_binding;
begin
  select * into v_binding
  from gdpr_internal.role_binding as b
  where b.audience = any (gdpr_internal.outgoing_audiences())
    and (b.role_name = p_role or pg_has_role(p_role, to_regrole(quote_ident(b.role_name))::oid, 'usage'))
  -- who is bound to a recipient in one way is so in every way
  order by (b.recipient is null), (b.role_name <> p_role), b.role_name
  limit 1;
  if v_binding.role_name is null then
    if not pg_has_role(p_role, 'gdpr_dpo', 'usage') then
      perform gdpr_internal.refuse('export_refused', format('role %s', quote_ident(p_role)));
    end if;
    v_binding.audience := 'export';
  end if;
  return v_binding;
end
$function$;
comment on function gdpr_internal.exporter(name) is
  'How a role exports: its binding to audience export, api or integration; an officer without one exports as audience export. Error: gdpr_export_refused (42501).';

create or replace function gdpr.export_rows(
  p_table text,
  p_keys text[] default null,
  p_recipient text default null,
  p_purpose text default null,
  p_locked text default 'leave_out',
  p_reason text default null
)
returns table (subject_ref uuid, data json)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_exporter gdpr_internal.role_binding := gdpr_internal.exporter(gdpr_internal.acting_role());
  v_new gdpr_internal.disclosure_record;
  v_purpose text;
  v_before text;
  v_mask bigint;
  v_usable bigint;
  v_found bigint[];
  v_persons bigint[];
begin
  perform gdpr_internal.require_home();
  select t.id, t.purpose_mask into v_new.table_id, v_usable
  from gdpr_internal.protected_table as t
  where t.relation = gdpr_internal.find_table(p_table) and t.unprotected_at is null;
  if v_new.table_id is null then
    perform gdpr_internal.refuse('not_protected');
  elsif p_locked is null or p_locked not in ('refuse', 'leave_out') then
    perform gdpr_internal.refuse('invalid_argument', 'locked is refuse or leave_out');
  elsif p_recipient <> v_exporter.recipient then
    perform gdpr_internal.refuse('invalid_argument', 'the policy binds this role to another recipient');
  end if;
  v_new.recipient_id := (gdpr_internal.require_recipient(coalesce(v_exporter.recipient, p_recipient))).recipient_id;
  v_purpose := coalesce(p_purpose, gdpr_internal.context_setting('purpose'), (
    select p.name from gdpr_internal.role_purpose as rp
    join gdpr_internal.purpose as p on p.id = rp.purpose_id
    where rp.role_name = v_exporter.role_name
    order by rp.position limit 1
  ));
  v_new.purpose_id := gdpr_internal.disclosing_purpose(v_purpose);
  v_mask := 1::bigint << v_new.purpose_id;

  if v_usable & v_mask = 0 then
    perform gdpr_internal.refuse('purpose_of_table', v_purpose);
  end if;
  v_before := gdpr_internal.before_worker();
  -- the names of generated functions come from the register
  if p_keys is null then
    execute format('select gdpr_generated.%I()', 'persons_' || v_new.table_id) into v_found;
  else
    execute format('select gdpr_generated.%I($1)', 'subjects_of_' || v_new.table_id) into v_found using p_keys;
  end if;
  perform gdpr_internal.after_worker(v_before);
  v_persons := gdpr_internal.sharable(coalesce(v_found, '{}'), v_mask);
  if p_locked = 'refuse' and cardinality(v_persons) < coalesce(cardinality(v_found), 0) then
    perform gdpr_internal.refuse('not_sharable', format('%s of %s', cardinality(v_found) - cardinality(v_persons), cardinality(v_found)));
  end if;
  if cardinality(v_persons) > 0 then
    v_new.audience := v_exporter.audience;
    v_new.reason := p_reason;
    select array_agg(c.column_name order by c.position), array_agg(distinct c.category) into v_new.columns, v_new.categories
    from gdpr_internal.protected_column as c
    where c.table_id = v_new.table_id and c.mask <> 'hide';
    perform gdpr_internal.put_disclosure(v_new, v_persons);
  end if;
  for subject_ref, data in
    execute format('select * from gdpr_generated.%I($1, $2, $3)', 'export_' || v_new.table_id) using p_keys, v_mask, v_persons
  loop
    return next;
  end loop;
  perform gdpr_internal.after_worker(v_before);
end
$function$;
comment on function gdpr.export_rows(text, text[], text, text, text, text) is
  'Rows of a protected table as redacted views show them (data: the columns by name), and in the same statement the record that they went to a recipient: of exactly those persons whose rows are returned. p_table: as the policy names it. p_keys: primary keys as text (several columns: a JSON array of texts), else all rows. p_recipient: for roles that the policy binds to none. p_purpose: one of the role''s, else that of the context, else its first. Only persons who may be processed for it are shared; p_locked => ''refuse'' refuses all when one of those asked for may not. For roles of audience export, api or integration, and gdpr_dpo. p_reason must hold no personal data. Errors: PR002, PR701, PR702, PR703, PR705 the table is not used for this purpose, PR003, PR004, PR408, PR640 the database was restored, 42501. Art. 5(2), 15(1)(c), 19.';
