-- [code] What protecting the tables of a policy will take: rows, time, room, and whether the application can go on.
-- GDPR Art. 25. Called by: gdprdb policy plan and apply, before anything is done.

set local role gdpr_owner;

create or replace function gdpr_internal.estimate_rows(p_relation regclass)
returns bigint
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case
    -- 100 rows in a block: what nobody has counted is guessed
    when sum(c.relpages) filter (where c.reltuples >= 0) > 0
      then (sum(c.reltuples) filter (where c.reltuples >= 0) / sum(c.relpages) filter (where c.reltuples >= 0))::float8
    else 100
  end * (sum(pg_relation_size(c.oid)) / current_setting('block_size')::integer)::float8
  from gdpr_internal.relation_tree(p_relation) as r (r)
  join pg_class as c on c.oid = r.r and c.relkind = 'r';
end;
comment on function gdpr_internal.estimate_rows(regclass) is 'About how many rows a table has, from its size and its statistics.';

create or replace function gdpr_policy.estimates(p_policy jsonb, p_role name)
returns table (object text, rows bigint, method text, reason text, seconds bigint, room bigint, wal bigint, lock text, rewrite boolean)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table record;
  v_values integer;
  v_digests integer;
  v_indexes integer;
  v_bytes bigint;
  v_passes integer;
  v_time interval;
begin
  for v_table in
    select o.* from gdpr_policy.enabling_order(p_policy, p_role) as o where o.state <> 'protected'
  loop
    object := v_table.relation::text;
    rows := gdpr_internal.estimate_rows(v_table.relation);
    select count(*) filter (where c.value ->> 'encrypt' <> 'no'), count(*) filter (where c.value ? 'identifier' or c.value ->> 'encrypt' = 'searchable')
    into v_values, v_digests
    from jsonb_each(v_table.definition -> 'columns') as c;
    select count(*) into v_indexes from pg_index as x where x.indrelid = v_table.relation;
    select sum(pg_table_size(r)) into v_bytes from gdpr_internal.relation_tree(v_table.relation) as r;
    v_passes := case when v_values > 0 and not gdpr_internal.seals_at_once(v_table.relation, v_table.definition) then 2 else 1 end;
    reason := v_table.obstacle;
    if v_table.obstacle is null then
      method := 'batches';
      reason := concat_ws(
        '; ',
        (
          select
            case when (select c.relkind = 'p' from pg_class as c where c.oid = v_table.relation)
              then 'at their ends the table and each of its partitions have ' else 'at its end the table has ' end
            || string_agg(quote_ident(b), ', ' order by n) || ', which become text; views keep the order'
          from unnest(gdpr_internal.becomes_text(v_table.relation, v_table.definition)) with ordinality as u (b, n)
        ),
        (
          select 'writers wait for each batch, in which triggers for any UPDATE are switched off ('
            || 'grant set on parameter session_replication_role keeps them quiet otherwise, unless they are ENABLE ALWAYS or REPLICA)'
          from gdpr_internal.quiet_triggers(p_role, v_table.relation) as q where q.switched <> '{}'
        )
      );
      reason := nullif(reason, '');
      lock := 'ACCESS EXCLUSIVE for moments';
      rewrite := false;
    else
      method := 'at once';
      lock := 'ACCESS EXCLUSIVE all the time';
      rewrite := true;
      v_passes := 1;
    end if;
    begin
      v_time := gdpr_internal.time_person(v_values, v_digests);
      -- besides: each time a row is written, its index entries, and vacuum
      seconds := ceil(rows * (extract(epoch from v_time) + v_passes * (15 + 3 * (v_indexes + 1)) / 1e6));
    exception when others then
      -- a key that is locked or missing: the plan says so, too
      seconds := null;
    end;
    -- by person: number, key, source, bases (700 bytes with their indexes), identifiers (150); by row: six columns, and for each
    -- ciphertext header, IV and MAC in base64 (120)
    room := rows * (700 + 150 * v_digests + 60 + 20 * v_digests + 120 * v_values) + v_bytes / case method when 'batches' then 5 else 1 end;
    wal := rows * (1100 + 250 * v_digests + 120 * v_values + v_passes * (100 + 80 * (v_indexes + 1))) + v_passes * v_bytes;
    return next;
  end loop;
end
$function$;
comment on function gdpr_policy.estimates(jsonb, name) is 'See gdpr.estimate(); takes the role that would apply the policy.';

create or replace function gdpr.estimate(p_policy jsonb)
returns table (object text, rows bigint, method text, reason text, seconds bigint, room bigint, wal bigint, lock text, rewrite boolean)
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select e.object, e.rows, e.method, e.reason, e.seconds, e.room, e.wal, e.lock, e.rewrite from gdpr_policy.estimates(p_policy, current_user) as e;
end;
comment on function gdpr.estimate(jsonb) is
  'What protecting the tables of a policy would take that are not protected yet, or not wholly: rows (from statistics), seconds (from a sample that is taken back; null where the key is locked), bytes of room and of WAL; method: batches, while the application works, or at once; reason: why at once, or which columns come to stand at the end of the table, and whether writers wait for batches; the strongest lock, and whether the table is rewritten under it. Error: PR001 policy refused. Art. 25.';
