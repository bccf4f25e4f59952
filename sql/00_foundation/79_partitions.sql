-- [code] Partitions that come after the table was protected: what is in them goes through the same door.
-- GDPR Art. 25. Called by: gdpr.apply(), when it finds a partition without the gate.

set local role gdpr_owner;

create or replace function gdpr_internal.partition_steps(p_relation regclass)
returns setof gdpr_policy.step
language sql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    t.relid::regclass::text, 'find the persons in a partition that came later and encrypt its rows',
    format('select gdpr_policy.backfill_partition(%L, %L)', p_relation, t.relid::regclass), 'ACCESS EXCLUSIVE', true
  from pg_partition_tree(p_relation) as t
  where t.isleaf and t.relid <> p_relation
    and not exists (select from pg_policy as p where p.polrelid = t.relid and p.polname = 'gdpr_40_gate')
  order by 1;
end;
comment on function gdpr_internal.partition_steps(regclass) is 'Steps that take in partitions which were attached to a protected table.';

create or replace function gdpr_policy.backfill_partition(p_relation regclass, p_partition regclass)
returns bigint
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_facts record := gdpr_policy.table_facts(p_relation);
  v_trigger record;
  v_back text[] := '{}';
  v_statement text;
  v_rows bigint;
begin
  -- this is no change of the data: the application's triggers must not see it; a row in observe mode has no gate, but its persons
  for v_trigger in
    select t.tgname, t.tgenabled from pg_trigger as t where t.tgrelid = p_partition and not t.tgisinternal and t.tgenabled <> 'D'
  loop
    execute format('alter table %s disable trigger %I', p_partition, v_trigger.tgname);
    v_back := v_back || format('alter table %s enable %s trigger %I', p_partition,
      case v_trigger.tgenabled when 'A' then 'always' when 'R' then 'replica' else '' end, v_trigger.tgname);
  end loop;
  if v_facts.via is not null then
    execute format('create trigger zzz_gdpr_10_backfill before update on %s for each row execute function gdpr_generated.%I(''all'')',
      p_partition, 'subject_' || v_facts.id);
  end if;
  execute format('create trigger zzz_gdpr_40_backfill before update on %s for each row execute function gdpr_generated.%I()',
    p_partition, 'protect_' || v_facts.id);
  execute format('update only %s set gdpr_purposes = gdpr_purposes where gdpr_subject_id is null and gdpr_purposes is null', p_partition);
  get diagnostics v_rows = row_count;
  if v_facts.via is not null then
    execute format('drop trigger zzz_gdpr_10_backfill on %s', p_partition);
  end if;
  execute format('drop trigger zzz_gdpr_40_backfill on %s', p_partition);
  foreach v_statement in array v_back loop
    execute v_statement;
  end loop;
  execute format('analyze %s', p_partition);
  return v_rows;
end
$function$;
comment on function gdpr_policy.backfill_partition(regclass, regclass) is
  'Step of apply(): the rows of a partition that was attached after its table was protected find their persons and are encrypted. Returns the rows.';
