-- [code] What values look like: addresses, numbers with check digits, hashes. No value leaves these functions.
-- GDPR Art. 4(1). Called by: gdpr.discover(), with the values of a sample. They raise no errors, which could show one.

set local role gdpr_owner;

create or replace function gdpr_policy.remainder(p_digits text, p_modulus integer)
returns integer
language plpgsql
immutable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_rest bigint := 0;
begin
  for i in 0 .. (length(p_digits) - 1) / 9 loop
    v_rest := (v_rest * power(10, length(substr(p_digits, i * 9 + 1, 9)))::bigint + substr(p_digits, i * 9 + 1, 9)::bigint) % p_modulus;
  end loop;
  return v_rest;
end
$function$;
comment on function gdpr_policy.remainder(text, integer) is 'A number of any length, given as its digits, modulo another.';

create or replace function gdpr_policy.weighted(p_digits text, p_weights integer[])
returns integer
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select sum(substr(p_digits, w.n::integer, 1)::integer * w.weight)::integer from unnest(p_weights) with ordinality as w (weight, n);
end;
comment on function gdpr_policy.weighted(text, integer[]) is 'The sum of digits times weights, of which check digits are made.';

create or replace function gdpr_policy.numbers_like(p_value text)
returns text[]
language plpgsql
immutable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v text := regexp_replace(upper(p_value), '[ ./-]', '', 'g');
  v_kinds text[] := '{}';
  v_sum integer;
  v_rest integer;
begin
  if length(v) not between 9 and 34 or p_value !~ '^[A-Za-z0-9]([A-Za-z0-9 ./-]*[A-Za-z0-9])?$' then
    return v_kinds;
  end if;
  if v ~ '^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$' then
    v_rest := gdpr_policy.remainder((
      select string_agg(case when c.c ~ '[0-9]' then c.c else (ascii(c.c) - 55)::text end, '' order by c.n)
      from regexp_split_to_table(substr(v, 5) || left(v, 4), '') with ordinality as c (c, n)
    ), 97);
    return case when v_rest = 1 then array['iban'] else v_kinds end;
  elsif v ~ '^[A-Z]{6}[0-9LMNPQRSTUV]{2}[ABCDEHLMPRST][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z]$' then
    select sum(case
      when c.n % 2 = 0 then case when c.c ~ '[0-9]' then c.c::integer else ascii(c.c) - 65 end
      else (array[1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23])[
        1 + case when c.c ~ '[0-9]' then c.c::integer else ascii(c.c) - 65 end
      ]
    end)::integer % 26
    into v_rest
    from regexp_split_to_table(left(v, 15), '') with ordinality as c (c, n);
    return case when chr(65 + v_rest) = right(v, 1) then array['codice_fiscale'] else v_kinds end;
  elsif v ~ '^[XYZ]?[0-9]{7,8}[A-Z]$' and length(v) = 9 then
    v_rest := (translate(left(v, 1), 'XYZ', '012') || substr(v, 2, 7))::integer % 23;
    return case when substr('TRWAGMYFPDXBNJZSQVHLCKE', v_rest + 1, 1) = right(v, 1) then array['dni'] else v_kinds end;
  elsif v ~ '^[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][0-9]{6}[A-D]$' then
    return array['nino'];
  elsif v ~ '^[12][0-9]{2}(0[1-9]|1[0-2]|[2-9][0-9])(2[AB]|[0-9]{2})[0-9]{6}[0-9]{2}$' then
    v_rest := 97 - gdpr_policy.remainder(
      case substr(v, 6, 2) when '2A' then overlay(left(v, 13) placing '19' from 6 for 2) when '2B' then overlay(left(v, 13) placing '18' from 6 for 2) else left(v, 13) end,
      97
    );
    if v_rest = right(v, 2)::integer then
      v_kinds := v_kinds || 'nir'::text;
    end if;
  end if;
  if v !~ '^[0-9]+$' then
    return v_kinds;
  end if;
  case length(v)
    when 9 then
      if p_value ~ '^[0-9]{3}-[0-9]{2}-[0-9]{4}$' and left(v, 3) not in ('000', '666') and v !~ '^9' then
        v_kinds := v_kinds || 'ssn'::text;
      end if;
      if gdpr_policy.weighted(v, array[9, 8, 7, 6, 5, 4, 3, 2, -1]) % 11 = 0 and v <> '000000000' then
        v_kinds := v_kinds || 'bsn'::text;
      end if;
      v_rest := 11 - gdpr_policy.weighted(v, array[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
      if v ~ '^[1-3]' and (case when v_rest > 9 then 0 else v_rest end) = right(v, 1)::integer then
        v_kinds := v_kinds || 'nif'::text;
      end if;
    when 11 then
      if v ~ '^[0-9]{2}([02468][1-9]|[13579][0-2])(0[1-9]|[12][0-9]|3[01])'
        and (10 - gdpr_policy.weighted(v, array[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) % 10) % 10 = right(v, 1)::integer
      then
        v_kinds := v_kinds || 'pesel'::text;
      end if;
      v_sum := (gdpr_policy.weighted(v, array[10, 9, 8, 7, 6, 5, 4, 3, 2]) * 10) % 11 % 10;
      if v_sum = substr(v, 10, 1)::integer and v !~ '^([0-9])\1{10}$'
        and (gdpr_policy.weighted(v, array[11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) * 10) % 11 % 10 = right(v, 1)::integer
      then
        v_kinds := v_kinds || 'cpf'::text;
      end if;
      -- one digit of the first ten stands there twice or three times, and at least one not at all
      if v ~ '^[1-9]' and (select count(distinct c) from regexp_split_to_table(left(v, 10), '') as c) in (8, 9) then
        v_rest := 10;
        for i in 1 .. 10 loop
          v_sum := (substr(v, i, 1)::integer + v_rest) % 10;
          v_rest := (case v_sum when 0 then 10 else v_sum end * 2) % 11;
        end loop;
        if (11 - v_rest) % 10 = right(v, 1)::integer then
          v_kinds := v_kinds || 'steuer_id'::text;
        end if;
      end if;
    when 12 then
      v_rest := gdpr_policy.weighted(v, array[6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
      if (case when v_rest <= 1 then 0 else 11 - v_rest end) = right(v, 1)::integer and v <> '000000000000' then
        v_kinds := v_kinds || 'my_number'::text;
      end if;
    else
      if length(v) between 14 and 19 and v ~ '^(4|5[1-5]|2[2-7]|3[47]|3[068]|35|6011|65|62)' then
        select sum(case when c.n % 2 = 0 then c.d * 2 - case when c.d > 4 then 9 else 0 end else c.d end)::integer
        into v_sum
        from (select d::integer as d, n from regexp_split_to_table(reverse(v), '') with ordinality as x (d, n)) as c;
        if v_sum % 10 = 0 then
          v_kinds := v_kinds || 'card'::text;
        end if;
      end if;
  end case;
  return v_kinds;
end
$function$;
comment on function gdpr_policy.numbers_like(text) is
  'Which numbers a value can be, by its check digits: iban, card, and numbers of persons: codice_fiscale (IT), dni (ES), nino (UK), nir (FR), ssn (US, its form), bsn (NL), nif (PT), pesel (PL), cpf (BR), steuer_id (DE), my_number (JP).';

create or replace function gdpr_policy.values_like(p_value text)
returns text[]
language plpgsql
immutable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  return gdpr_policy.numbers_like(p_value) || array_remove(array[
    case
      when p_value ~ '^\s*[^\s@,;<>"]+@[^\s@,;<>"]+\.[[:alpha:]][^\s@.]+\s*$' then 'email'
      when p_value ~ '[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z]{2,}' then 'email_inside'
    end,
    case
      when p_value ~ '^\s*(\+|00|\(\+?)[0-9(][0-9 ()./-]{5,22}(\s*(x|ext\.?|app\.?)\s*[0-9]+)?\s*$' then 'phone'
      when p_value ~ '^\s*[(0-9][0-9 ()./-]{4,22}\s*$' then 'phone_like'
    end,
    case
      when p_value ~ '^((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(/[0-9]{1,2})?$' then 'ip_address'
      when p_value ~ '^[0-9A-Fa-f]{0,4}(:[0-9A-Fa-f]{0,4}){2,7}(/[0-9]{1,3})?$' and p_value !~ '^[0-9]{1,2}(:[0-9]{2}){2}$' then 'ip_address'
    end,
    case when p_value ~ '^(\$2[abxy]\$|\$argon2|\$scrypt\$|\$[156y]\$|pbkdf2[_:]|scrypt:|bcrypt|argon2|\{(S?SHA(256|512)?|S?MD5|CRYPT|PBKDF2)\}|SCRAM-SHA-256\$)' then 'hash' end,
    case when p_value ~ '^(19|20)[0-9]{2}[-./](0?[1-9]|1[0-2])[-./](0?[1-9]|[12][0-9]|3[01])|^(0?[1-9]|[12][0-9]|3[01])[-./](0?[1-9]|1[0-2])[-./](19|20)[0-9]{2}$' then 'date' end
  ], null);
end
$function$;
comment on function gdpr_policy.values_like(text) is
  'What a value looks like: email, email_inside (a text that holds one), phone, phone_like, ip_address, hash (of a password), date, and gdpr_policy.numbers_like().';
