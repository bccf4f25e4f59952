-- [code] Canonical forms: when two spellings are the same identifier.
-- GDPR Art. 5(1)(d), Art. 17: who was erased under one spelling must not come back under another.

set local role gdpr_owner;

create or replace function gdpr_internal.fold_text(p_value text)
returns text
language plpgsql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_folded text;
begin
  if octet_length(p_value) = length(p_value) then
    return lower(p_value collate "C");
  end if;
  -- a sub-select, so that each letter is one probe of the index whatever the planner believes of the table
  select string_agg(
    coalesce((select f.folded from gdpr_internal.fold as f where f.letter = c.letter), lower(c.letter collate "C")), '' order by c.n
  )
  into v_folded
  from unnest(string_to_array(normalize(p_value, nfkc), null)) with ordinality as c (letter, n);
  return normalize(coalesce(v_folded, ''), nfkc);
end
$function$;
comment on function gdpr_internal.fold_text(text) is
  'NFKC, Unicode case folding, decimal digits to ASCII, format characters removed; the same on every server, whatever its locale.';

create or replace function gdpr_internal.punycode_decode(p_label text)
returns text
language plpgsql
immutable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_mark integer := length(p_label) - strpos(reverse(p_label), '-') + 1;
  v_output text[] := '{}';
  v_rest text := p_label;
  v_n bigint := 128;
  v_i bigint := 0;
  v_bias integer := 72;
  v_old_i bigint;
  v_weight bigint;
  v_k integer;
  v_t integer;
  v_digit integer;
  v_position integer := 1;
  v_delta bigint;
  v_size integer;
begin
  if strpos(p_label, '-') > 0 then
    v_output := coalesce(string_to_array(left(p_label, v_mark - 1), null), '{}');
    v_rest := substr(p_label, v_mark + 1);
  end if;
  while v_position <= length(v_rest) loop
    v_old_i := v_i;
    v_weight := 1;
    v_k := 36;
    loop
      v_digit := strpos('abcdefghijklmnopqrstuvwxyz0123456789', substr(v_rest, v_position, 1)) - 1;
      if v_digit < 0 or v_position > length(v_rest) then
        return 'xn--' || p_label;
      end if;
      v_position := v_position + 1;
      v_i := v_i + v_digit * v_weight;
      v_t := least(greatest(v_k - v_bias, 1), 26);
      exit when v_digit < v_t;
      v_weight := v_weight * (36 - v_t);
      if v_weight > 4294967296 or v_i > 4294967296 then
        return 'xn--' || p_label;
      end if;
      v_k := v_k + 36;
    end loop;
    v_size := cardinality(v_output) + 1;
    v_delta := case when v_old_i = 0 then (v_i - v_old_i) / 700 else (v_i - v_old_i) / 2 end;
    v_delta := v_delta + v_delta / v_size;
    v_k := 0;
    while v_delta > 455 loop
      v_delta := v_delta / 35;
      v_k := v_k + 36;
    end loop;
    v_bias := v_k + (36 * v_delta / (v_delta + 38))::integer;
    v_n := v_n + v_i / v_size;
    v_i := v_i % v_size;
    if v_n > 1114111 or v_n between 55296 and 57343 then
      return 'xn--' || p_label;
    end if;
    v_output := v_output[:v_i::integer] || chr(v_n::integer) || v_output[v_i::integer + 1:];
    v_i := v_i + 1;
  end loop;
  return array_to_string(v_output, '');
end
$function$;
comment on function gdpr_internal.punycode_decode(text) is
  'The Unicode form of an IDNA label given without its xn-- (RFC 3492); a label that is no Punycode is given back with it.';

create or replace function gdpr_internal.canonical_domain(p_domain text)
returns text
language plpgsql
stable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_labels text[];
  v_label text;
begin
  -- no domain is longer than 253 letters
  if strpos(p_domain, 'xn--') = 0 or length(p_domain) > 253 then
    return rtrim(p_domain, '.');
  end if;
  v_labels := string_to_array(rtrim(p_domain, '.'), '.');
  for v_i in 1 .. cardinality(v_labels) loop
    if starts_with(v_labels[v_i], 'xn--') then
      v_label := gdpr_internal.punycode_decode(substr(v_labels[v_i], 5));
      -- one that folds to something else is another domain: xn--fa-hia.example is not fass.example
      if gdpr_internal.fold_text(v_label) = v_label then
        v_labels[v_i] := v_label;
      end if;
    end if;
  end loop;
  return gdpr_internal.fold_text(array_to_string(v_labels, '.'));
end
$function$;
comment on function gdpr_internal.canonical_domain(text) is 'A folded domain with its IDNA labels in Unicode and without the root dot.';

create or replace function gdpr_internal.canonical_phone(p_folded text)
returns text
language plpgsql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_digits text := regexp_replace(p_folded, '[^0-9]', '', 'g');
  v_country text;
begin
  if starts_with(p_folded, '+') then
    -- the trunk zero is written in brackets beside a country code
    v_digits := regexp_replace(replace(p_folded, '(0)', ''), '[^0-9]', '', 'g');
  elsif starts_with(v_digits, '00') then
    v_digits := ltrim(v_digits, '0');
  elsif starts_with(v_digits, '0') then
    select s.value #>> '{}' into v_country from gdpr_internal.setting as s where s.name = 'phone_country_code';
    v_digits := coalesce(v_country || substr(v_digits, 2), v_digits);
  end if;
  return v_digits;
end
$function$;
comment on function gdpr_internal.canonical_phone(text) is
  'The E.164 digits of a folded phone number; a national number (leading 0) gets the setting phone_country_code in front.';

create or replace function gdpr_internal.canonical(p_kind text, p_value text)
returns text
language plpgsql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_text text;
  v_at integer;
begin
  if p_kind = 'exact' then
    return p_value;
  end if;
  v_text := case when octet_length(p_value) = length(p_value) then lower(p_value collate "C") else gdpr_internal.fold_text(p_value) end;
  v_text := btrim(v_text, E' \t\r\n\u00a0\u3000');
  if p_kind = 'email' then
    v_text := translate(v_text, E'\u3002 \t\r\n\u00a0\u3000', '.');
    if strpos(v_text, 'xn--') > 0 or right(v_text, 1) = '.' then
      v_at := length(v_text) - strpos(reverse(v_text), '@') + 1;
      if strpos(v_text, '@') > 0 then
        v_text := left(v_text, v_at) || gdpr_internal.canonical_domain(substr(v_text, v_at + 1));
      end if;
    end if;
  elsif p_kind = 'phone' then
    v_text := gdpr_internal.canonical_phone(v_text);
  elsif p_kind <> 'text' then
    perform gdpr_internal.refuse('invalid_argument', 'the kind of an identifier is email, phone, text or exact');
  end if;
  return nullif(v_text, '');
end
$function$;
comment on function gdpr_internal.canonical(text, text) is
  'The canonical form of an identifier. email: folded, no spaces, IDNA domain; phone: E.164 digits; text: folded and trimmed; exact: as it is. Null for a value without content, which identifies nobody.';

create or replace function gdpr_internal.equal_form(p_kind text, p_value text)
returns text
language sql
stable
parallel safe
security invoker
begin atomic
  -- no number is a text without digits, no address the empty one: these meet no canonical form
  select coalesce(
    gdpr_internal.canonical(p_kind, p_value),
    case when p_value is not null then coalesce(gdpr_internal.canonical('text', p_value), '') end
  );
end;
comment on function gdpr_internal.equal_form(text, text) is
  'What a searchable column compares of a value: the canonical form; of one that is no such identifier, as a telephone number without digits, that of text; empty for a value without content, which equals others of its kind and, unlike NULL, is a value.';

create or replace function gdpr_internal.generate_addresses()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_local text := 'split_part(p_canonical, ''@'', 1)';
  v_domain text := 'substr(p_canonical, strpos(p_canonical, ''@'') + 1)';
  v_rules text;
begin
  -- asked for every address that comes in: the policy as code, which the planner puts into the triggers
  select string_agg(
    format(
      'when %s = %L then %s || %L', v_domain, d.domain,
      case when (d.rule ->> 'ignore_dots')::boolean then format('replace(%s, %L, %L)', l.part, '.', '') else l.part end,
      '@' || d.same_as
    ), ' ' order by d.domain
  )
  into v_rules
  from (
    select a.key as domain, coalesce(a.value ->> 'same_as', a.key) as same_as,
      '{"tag": "+"}' || case when a.value ? 'same_as' then s.value -> (a.value ->> 'same_as') else a.value end as rule
    from gdpr_internal.setting as s
    cross join lateral jsonb_each(s.value) as a
    where s.name = 'addresses'
  ) as d
  cross join lateral (
    select case
      when d.rule ->> 'tag' = '' then v_local
      else format('case when strpos(%1$s, %2$L) > 1 then split_part(%1$s, %2$L, 1) else %1$s end', v_local, d.rule ->> 'tag')
    end as part
  ) as l;
  execute format(
    'create or replace function gdpr_generated.bare_address(p_canonical text) returns text language sql stable parallel safe '
    'security invoker begin atomic select case %s when strpos(%2$s, %3$L) > 1 then split_part(%2$s, %3$L, 1) || substr(p_canonical, strpos(p_canonical, %4$L)) '
    'else p_canonical end; end',
    v_rules, v_local, '+', '@'
  );
  comment on function gdpr_generated.bare_address(text) is
    'The mailbox that a canonical address means: without its plus-tag, or by the rules of settings.addresses. Generated by gdpr.apply().';
  grant execute on function gdpr_generated.bare_address(text) to gdpr_keyholder;
end
$function$;
comment on function gdpr_internal.generate_addresses() is 'Generates gdpr_generated.bare_address() from settings.addresses of the policy.';

do $addresses$
begin
  perform gdpr_internal.generate_addresses();
end
$addresses$;

create or replace function gdpr_internal.bare_form(p_kind text, p_canonical text)
returns text
language sql
stable
parallel safe
security invoker
begin atomic
  select case when p_kind = 'email' then gdpr_generated.bare_address(p_canonical) else p_canonical end;
end;
comment on function gdpr_internal.bare_form(text, text) is
  'The mailbox that a canonical address means, without tags and what else its domain ignores: what the blocklist checks and blocks besides the address itself.';

create or replace function gdpr_policy.canonical_of(p_kind text, p_value text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.equal_form(p_kind, p_value);
end;
comment on function gdpr_policy.canonical_of(text, text) is 'What a searchable column would compare of a value, so that plan() can look for values that would become equal.';
