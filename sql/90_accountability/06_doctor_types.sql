-- [code] Findings about what stands beside encrypted columns and partitions.
-- GDPR Art. 24, Art. 32(1)(d). Called by: gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_types()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with encrypted as (
    select t.relation, c.column_name, a.attnum
    from gdpr_internal.protected_table as t
    join gdpr_internal.protected_column as c on c.table_id = t.id and c.encrypt <> 'no'
    join pg_attribute as a on a.attrelid = t.relation and a.attname = c.column_name
    where t.unprotected_at is null
  )
  select 'error', 'detached', c.oid::regclass::text,
    'was part of a protected table: it holds personal data that erasure does not reach, and what is written here is neither encrypted nor recorded',
    'Attach it again and apply the policy; or copy what has to stay from the clear view elsewhere, attached, and drop it.'
  from pg_class as c
  -- while its table is being enabled it has no gate yet
  where (
    exists (select from pg_policy as p where p.polrelid = c.oid and p.polname = 'gdpr_40_gate')
    or exists (select from pg_trigger as g where g.tgrelid = c.oid and g.tgname = 'zzz_gdpr_40_truncate')
  )
  and not exists (
    select from gdpr_internal.protected_table as t
    where t.unprotected_at is null and (t.relation = c.oid or t.relation = pg_partition_root(c.oid))
  )
  union all
  select 'warning', 'tests_ciphertext', e.relation::text,
    format('constraint %I came after the policy and tests the ciphertext of column %I', k.conname, e.column_name),
    'Drop it; unprotect the table, add it and apply the policy: then it goes on over plaintext, or is refused with the reason.'
  from encrypted as e
  join pg_constraint as k on k.conrelid = e.relation and k.contype in ('c', 'x', 'u', 'f') and e.attnum = any (k.conkey)
  union all
  select 'warning', 'tests_ciphertext', e.relation::text,
    format('unique index %s came after the policy and finds no two ciphertexts of column %I equal', x.indexrelid::regclass, e.column_name),
    'Drop it; encrypt = "searchable" and a UNIQUE constraint from before the policy hold for plaintext.'
  from encrypted as e
  join pg_index as x on x.indrelid = e.relation and x.indisunique and e.attnum = any (x.indkey)
  where not exists (select from pg_constraint as k where k.conindid = x.indexrelid and k.conrelid = e.relation)
  union all
  select 'warning', 'publication', t.relation::text,
    format(
      'publication %I sends rows of the table past the gate, hidden and restricted ones%s', p.pubname,
      coalesce(', and ciphertext of ' || (
        select string_agg(quote_ident(e.column_name), ', ' order by e.column_name)
        from encrypted as e
        join pg_attribute as a on a.attrelid = g.relid and a.attname = e.column_name
        where e.relation = t.relation and (g.attrs is null or a.attnum = any (g.attrs))
      ) || ', which subscribers cannot read', '')
    ),
    'Take the table out of the publication, or let it send columns that say nothing about persons.'
  from gdpr_internal.protected_table as t
  cross join pg_publication as p
  cross join lateral (
    select g.relid, g.attrs from pg_get_publication_tables(p.pubname::text) as g
    where g.relid = t.relation or g.relid in (select i.relid from pg_partition_tree(t.relation) as i)
    order by g.relid = t.relation desc
    limit 1
  ) as g
  where t.unprotected_at is null
  union all
  select 'info', 'trigger_reads', e.relation::text,
    format('trigger %I runs after the row is stored and reads column %I: it sees ciphertext', g.tgname, e.column_name),
    'A BEFORE trigger sees the plaintext of what is written; gdpr.reveal() opens a value to those who may read it.'
  from encrypted as e
  join pg_trigger as g on g.tgrelid = e.relation and not g.tgisinternal and g.tgname !~ '^zzz_gdpr_' and g.tgtype & 2 = 0
  join pg_proc as f on f.oid = g.tgfoid
  where lower(f.prosrc) ~ format('\m(new|old)\.(%1$s|"%1$s")\M', regexp_replace(lower(e.column_name), '([^[:alnum:]_])', '\\\1', 'g'));
end;
comment on function gdpr_internal.doctor_types() is
  'Findings: detached partitions, constraints and unique indexes that came after encryption, publications, triggers that read ciphertext.';
