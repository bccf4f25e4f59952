-- [code] The versions of a row, from what it is now back through what its audit records kept.
-- GDPR Art. 5(2), Art. 16. Called by: gdpr_dpo. Ends where the person was erased: what was kept of him cannot be opened any more.

set local role gdpr_keyholder;

create or replace function gdpr_internal.audit_row_key(p_table smallint, p_key text)
returns uuid
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.keyed_digest(k.audit_key, p_table::text, p_key)
  from gdpr_internal.key_encryption_key as k
  where k.retired_at is null;
end;
comment on function gdpr_internal.audit_row_key(smallint, text) is 'The digest of a primary key as audit records keep it.';

create or replace function gdpr_internal.open_version(p_table smallint, p_subject bigint, p_row jsonb, p_payload text)
returns jsonb
language sql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
begin atomic
  select case
    when p_payload is null then gdpr_internal.open_columns(k.data_key, p_subject, p_row, true) || coalesce((
      select jsonb_object_agg(n.column_name, jsonb_build_object('error', b.error))
      from (
        select array_agg(c.id) as ids, array_agg(p_row ->> c.column_name) as values
        from gdpr_internal.protected_column as c
        where c.table_id = p_table and c.encrypt <> 'no'
      ) as v
      cross join lateral gdpr_internal.broken_columns(p_subject, v.ids, v.values) as b
      join gdpr_internal.protected_column as n on n.id = b.column_id
    ), '{}')
    when k.data_key is not null
      then gdpr_internal.open_columns(k.data_key, p_subject, gdpr_internal.open_value(k.data_key, p_subject, 0, p_payload)::jsonb, true)
  end - 'gdpr_subject_id'
  from (select gdpr_internal.data_key(gdpr_internal.keyring(), p_subject) as data_key offset 0) as k;
end;
comment on function gdpr_internal.open_version(smallint, bigint, jsonb, text) is
  'A row as stored, or the old values in the payload of an audit record, in plaintext and original types; {"error": code} for what stands in the row and cannot be opened; null if the payload''s key was destroyed. Errors: PR402. Only functions of gdpr_dpo call it.';

set local role gdpr_owner;

create or replace function gdpr_internal.last_owner(p_table smallint, p_row uuid)
returns bigint
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select a.subject_id
  from gdpr_internal.audit_record as a
  where a.table_id = p_table and a.row_key = p_row and a.operation = 'DELETE' and a.subject_id is not null
  order by a.at desc
  limit 1;
end;
comment on function gdpr_internal.last_owner(smallint, uuid) is
  'Whose row it was that is no longer there; null if no record tells. In months that are over an index finds it; this one is read.';

create or replace function gdpr_internal.row_records(p_table smallint, p_row uuid, p_subject bigint, p_at timestamptz, p_id bigint)
returns setof gdpr_internal.audit_record
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
declare
  v_record gdpr_internal.audit_record;
  v_arrival gdpr_internal.audit_record;
  v_subject bigint := p_subject;
  v_row uuid := p_row;
  v_at timestamptz := p_at;
  v_id bigint := p_id;
begin
  loop
    v_record := null;
    for v_record in
      select a.*
      from gdpr_internal.audit_record as a
      where a.subject_id = v_subject and a.at <= v_at and a.table_id = p_table and a.row_key = v_row and (a.at, a.id) < (v_at, v_id)
      order by a.at desc, a.id desc
    loop
      -- what a trigger of the application changes in a row that has just come in is recorded before the arrival
      if v_record.operation = 'UPDATE' and v_record.xid = v_arrival.xid then
        v_arrival.at := v_record.at;
      elsif v_arrival.id is not null then
        return next v_arrival;
        v_arrival := null;
      end if;
      exit when v_record.operation = 'MOVE';
      if v_record.operation = 'INSERT' then
        v_arrival := v_record;
      else
        return next v_record;
      end if;
    end loop;
    if v_arrival.id is not null then
      return next v_arrival;
      v_arrival := null;
    end if;
    exit when v_record.operation is distinct from 'MOVE';
    -- the same change, as it was recorded just before of the person and the key that the row had; the ids of one transaction
    -- lie together, and the bound keeps the primary key from being read from its beginning
    select a.* into v_record
    from gdpr_internal.audit_record as a
    where a.id > v_record.id - 1000000 and a.id < v_record.id and a.xid = v_record.xid
      and a.table_id = p_table and a.operation = 'UPDATE' and a.row_hash = v_record.row_hash
    order by a.id desc
    limit 1;
    exit when v_record.id is null;
    return next v_record;
    v_subject := v_record.subject_id;
    v_row := v_record.row_key;
    v_at := v_record.at;
    v_id := v_record.id;
  end loop;
end
$function$;
comment on function gdpr_internal.row_records(smallint, uuid, bigint, timestamptz, bigint) is
  'The audit records of a row before p_at and p_id, latest first: from the person and key it has, or had last, back through those it had before.';

create or replace function gdpr_internal.lasting_key(p_relation regclass)
returns name[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select array_agg(a.attname order by a.attnum)
  from pg_class as c
  join pg_index as x on x.indrelid = c.oid and x.indisprimary
  join pg_attribute as a on a.attrelid = c.oid and a.attnum = any (x.indkey)
  where c.oid = p_relation and c.relkind = 'p' and a.attname not in (
    select b.attname
    from pg_partition_tree(p_relation) as t
    join pg_partitioned_table as p on p.partrelid = t.relid
    join pg_attribute as b on b.attrelid = p.partrelid and b.attnum = any (p.partattrs)
  );
end;
comment on function gdpr_internal.lasting_key(regclass) is
  'The columns of the primary key of a partitioned table that a row keeps when it moves to another partition; null where there are none.';

create or replace function gdpr_internal.left_behind(p_record gdpr_internal.audit_record)
returns gdpr_internal.audit_record
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
begin atomic
  select a
  from gdpr_internal.audit_record as a
  -- both are recorded one after the other: what comes between are records of other sessions, and few
  where a.id > p_record.id - 1000 and a.id < p_record.id and a.xid = p_record.xid
    and a.table_id = p_record.table_id and a.operation = 'DELETE' and a.subject_id = p_record.subject_id
  order by a.id desc
  limit 1;
end;
comment on function gdpr_internal.left_behind(gdpr_internal.audit_record) is
  'The record of the deletion just before an insertion, in its transaction, table and person: to PostgreSQL a row that moves to another partition is deleted there and inserted here.';

create or replace function gdpr.history(p_table regclass, p_key text, p_subject bigint default null)
returns table (
  at timestamptz, until timestamptz, operation text, subject_id bigint, purpose text, actor text, login name, audit_id bigint, changed text[],
  content jsonb
)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table smallint := gdpr_internal.table_id(p_table);
  v_before text := gdpr_internal.before_worker();
  v_key text;
  v_subject bigint;
  v_content jsonb;
  v_record gdpr_internal.audit_record;
  v_left gdpr_internal.audit_record;
  v_old jsonb;
  v_same name[] := gdpr_internal.lasting_key(p_table);
  v_row uuid;
  v_at timestamptz := 'infinity';
  v_id bigint := 0;
  v_last text;
begin
  execute format('select * from gdpr_generated.%I($1)', 'row_' || v_table) into v_subject, v_key, v_content using array[p_key];
  perform gdpr_internal.after_worker(v_before);
  if v_key is not null then
    v_content := gdpr_internal.open_version(v_table, v_subject, v_content, null);
  else
    v_key := p_key;
    v_subject := coalesce(p_subject, gdpr_internal.last_owner(v_table, gdpr_internal.audit_row_key(v_table, v_key)));
  end if;
  if v_subject is null then
    return;
  end if;
  perform gdpr_internal.audit_event('ACCESS', v_subject, jsonb_build_object('document', 'history', 'table', p_table::text));
  v_row := gdpr_internal.audit_row_key(v_table, v_key);
  loop
    v_left := null;
    for v_record in select * from gdpr_internal.row_records(v_table, v_row, v_subject, v_at, v_id) loop
      -- another row that once had this key
      exit when v_last = 'INSERT' and v_record.operation <> 'DELETE';
      at := v_record.at;
      operation := v_record.operation;
      subject_id := v_record.subject_id;
      purpose := (select p.name from gdpr_internal.purpose as p where p.id = v_record.purpose_id);
      actor := v_record.actor;
      login := v_record.login;
      audit_id := v_record.id;
      changed := gdpr_internal.present_names(v_table, v_record.at, v_record.changed);
      content := v_content;
      if v_record.operation = 'INSERT' and v_same is not null and v_content is not null then
        v_left := gdpr_internal.left_behind(v_record);
        v_old := gdpr_internal.present_row(v_table, v_left.at, gdpr_internal.open_version(v_table, v_left.subject_id, null, v_left.payload));
        if v_old is null or exists (select from unnest(v_same) as s (name) where v_old -> s.name is distinct from v_content -> s.name) then
          v_left := null;
        else
          operation := 'UPDATE';
          changed := array(
            select k.name from jsonb_object_keys(v_content) with ordinality as k (name, n)
            where v_old -> k.name is distinct from v_content -> k.name order by k.n
          );
        end if;
      end if;
      return next;
      until := at;
      v_last := operation;
      exit when v_left.id is not null;
      v_content := case
        when v_record.operation = 'INSERT' or v_record.payload is null then null
        -- what was lost in between stays lost, but a deleted row was kept whole
        when v_content is null and v_record.operation <> 'DELETE' then null
        else coalesce(v_content, '{}')
          || gdpr_internal.present_row(v_table, v_record.at, gdpr_internal.open_version(v_table, v_record.subject_id, null, v_record.payload))
      end;
    end loop;
    exit when v_left.id is null;
    v_content := v_old;
    v_row := v_left.row_key;
    v_subject := v_left.subject_id;
    v_at := v_left.at;
    v_id := v_left.id;
  end loop;
  if v_last is distinct from 'INSERT' and (v_content is not null or v_last is not null) then
    at := null;
    operation := null;
    subject_id := v_subject;
    purpose := null;
    actor := null;
    login := null;
    audit_id := null;
    changed := null;
    content := v_content;
    return next;
  end if;
end
$function$;
comment on function gdpr.history(regclass, text, bigint) is
  'The versions of a row, by its primary key as text (several columns: a JSON array of texts), latest first: from when until when, by which change (operation, changed, actor, login, purpose, audit_id), and the whole row in plaintext (content; {"error": "PR404"} for a value that stands there broken). A version without at was there before its changes were recorded. content is null of a deleted row, and of versions whose old values were not kept or can no longer be opened: the person is erased, or retention ended them. A row that had another key or person before, or moved between partitions, is followed. p_subject: whose row it was; without it, a row that is no longer there is looked for in the records of this month, and of former ones by an index. On record as ACCESS. Columns added later appear in older versions with what they held first. Errors: PR002 not protected, PR004 key of the wrong type, PR402, PR408 no primary key. Art. 5(2), Art. 16.';
