-- What an attempt must leave as it was: each part by its name. {db} is the database's name.
select 'table ' || c.oid::regclass, md5(query_to_xml(format('select * from %s order by 1', c.oid::regclass), true, false, '')::text)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'm') and n.nspname in ('public', 'app', 'payroll')
union all
select 'sequence', md5(last_value::text || is_called) from public.orders_id_seq
union all
select 'large objects', md5(string_agg(loid || ' ' || pageno || ' ' || md5(data), ',' order by loid, pageno)) from pg_largeobject
union all
select 'owners of large objects', md5(string_agg(l::text, ',' order by oid)) from pg_largeobject_metadata l
union all
select 'relations', md5(string_agg(concat_ws(' ', oid, relname, relnamespace, relowner, relkind, relacl, relrowsecurity, relforcerowsecurity, reloptions), ',' order by oid)) from pg_class
union all
select 'columns', md5(string_agg(concat_ws(' ', attrelid, attnum, attname, atttypid, attisdropped, attacl), ',' order by attrelid, attnum)) from pg_attribute
union all
select 'functions', md5(string_agg(t::text, ',' order by oid)) from pg_proc t
union all
select 'schemas', md5(string_agg(t::text, ',' order by oid)) from pg_namespace t
union all
select 'types', md5(string_agg(t::text, ',' order by oid)) from pg_type t
union all
select 'operators', md5(string_agg(t::text, ',' order by oid)) from pg_operator t
union all
select 'casts', md5(string_agg(t::text, ',' order by oid)) from pg_cast t
union all
select 'triggers', md5(string_agg(t::text, ',' order by oid)) from pg_trigger t
union all
select 'rules', md5(string_agg(concat_ws(' ', oid, rulename, ev_class, ev_enabled), ',' order by oid)) from pg_rewrite
union all
select 'policies', md5(string_agg(concat_ws(' ', oid, polname, polcmd, pg_get_expr(polqual, polrelid)), ',' order by oid)) from pg_policy
union all
select 'constraints', md5(string_agg(concat_ws(' ', oid, conname, contype), ',' order by oid)) from pg_constraint
union all
select 'indexes', md5(string_agg(concat_ws(' ', indexrelid, indrelid, indisvalid, indisclustered), ',' order by indexrelid)) from pg_index
union all
select 'enumerations', md5(string_agg(t::text, ',' order by oid)) from pg_enum t
union all
select 'comments', md5(string_agg(t::text, ',' order by t::text)) from pg_description t
union all
select 'rights by default', md5(string_agg(t::text, ',' order by oid)) from pg_default_acl t
union all
select 'counts', concat_ws(' ', (select count(*) from pg_extension), (select count(*) from pg_foreign_server),
       (select count(*) from pg_user_mapping), (select count(*) from pg_foreign_table),
       (select count(*) from pg_publication), (select count(*) from pg_publication_rel),
       (select count(*) from pg_event_trigger), (select count(*) from pg_statistic_ext),
       (select count(*) from pg_language), (select count(*) from pg_am), (select count(*) from pg_collation),
       (select count(*) from pg_conversion), (select count(*) from pg_ts_config), (select count(*) from pg_transform),
       (select count(*) from pg_seclabel), (select count(*) from pg_subscription), (select count(*) from pg_replication_origin),
       (select count(*) from pg_replication_slots), (select count(*) from pg_tablespace),
       (select count(*) from pg_prepared_xacts where database = '{db}'),
       (select count(*) from pg_database where datname in ('made', '{db}')))
union all
select 'roles', md5(string_agg(t::text, ',' order by oid)) from pg_authid t where rolname like '{db}%' or rolname in ('made', 'curfew')
union all
select 'memberships', md5(string_agg(t::text, ',' order by t::text)) from pg_auth_members t
 where member in (select oid from pg_authid where rolname like '{db}%') or roleid in (select oid from pg_authid where rolname like '{db}%')
union all
select 'settings of roles', md5(string_agg(t::text, ',' order by t::text)) from pg_db_role_setting t
 where setrole in (select oid from pg_authid where rolname like '{db}%') or setdatabase = (select oid from pg_database where datname = '{db}')
union all
select 'settings', md5(string_agg(name || setting, ',' order by name)) from pg_settings where source = 'configuration file'
union all
select 'the database', concat_ws(' ', datdba, datacl, (select stats_reset from pg_stat_database s where s.datid = d.oid)) from pg_database d where datname = '{db}'
union all
select 'advisory locks', count(*)::text from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = '{db}')
union all
select 'other sessions', string_agg(pid::text, ',' order by pid) from pg_stat_activity where datname = '{db}' and application_name = 'victim'
