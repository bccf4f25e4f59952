-- [code] What a policy says about addresses that mean the same mailbox, and how long the blocklist remembers.
-- GDPR Art. 17, 5(1)(e). Called by: gdpr_internal.settings_problems().

set local role gdpr_owner;

create or replace function gdpr_internal.address_problems(p_addresses jsonb)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_domain text;
  v_rule jsonb;
  v_where text;
  v_problems text[] := '{}';
begin
  if p_addresses is null then
    return '{}';
  elsif jsonb_typeof(p_addresses) <> 'object' then
    return array['settings.addresses: has to be a table of domains'];
  end if;
  for v_domain, v_rule in select key, value from jsonb_each(p_addresses) loop
    v_where := format('settings.addresses.%s', to_json(v_domain));
    v_problems := v_problems || gdpr_internal.unknown_keys(v_where, v_rule, array['tag', 'ignore_dots', 'same_as']);
    continue when jsonb_typeof(v_rule) <> 'object';
    if v_domain !~ '^[^@\s.]+(\.[^@\s.]+)+$' or gdpr_internal.canonical('email', 'x@' || v_domain) <> 'x@' || v_domain then
      v_problems := v_problems || format('%s: a domain in its canonical form, as "gmail.com"', v_where);
    end if;
    if v_rule ->> 'tag' !~ '^[-+=_%#]?$' then
      v_problems := v_problems || format('%s.tag: the character that begins a tag, one of + - = _ %% #, or "" for none', v_where);
    end if;
    if jsonb_typeof(coalesce(v_rule -> 'ignore_dots', 'false')) <> 'boolean' then
      v_problems := v_problems || format('%s.ignore_dots: true or false', v_where);
    end if;
    if v_rule ? 'same_as' and (
      v_rule ?| array['tag', 'ignore_dots'] or v_rule ->> 'same_as' = v_domain or not p_addresses ? (v_rule ->> 'same_as')
      or p_addresses -> (v_rule ->> 'same_as') ? 'same_as'
    ) then
      v_problems := v_problems || format('%s.same_as: another domain of this list, whose rules hold for both', v_where);
    end if;
  end loop;
  return v_problems;
end
$function$;
comment on function gdpr_internal.address_problems(jsonb) is 'What is wrong with settings.addresses of a policy.';
