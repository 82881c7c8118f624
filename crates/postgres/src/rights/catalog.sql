-- What an account can do, asked of the catalogs of PostgreSQL 13 to 18 as the account itself.
--
-- Each question gives rows of: the right in words, the object, whom it was given to, the SQL that takes
-- it away, and the name by which `reviewed` can accept it. :class is `connect`, `read` or `write`. The
-- part `common` comes before each question.

--@ common
WITH RECURSIVE
-- The account and every role it can become or acts as. Whether a membership is inherited makes no
-- difference: SET ROLE does the rest.
mine(oid, rolname) AS (
    SELECT oid, rolname FROM pg_roles WHERE rolname = session_user
  UNION
    SELECT r.oid, r.rolname
      FROM mine JOIN pg_auth_members m ON m.member = mine.oid JOIN pg_roles r ON r.oid = m.roleid
),
-- Whose rights it has.
grantee(oid, name) AS (
    SELECT oid, quote_ident(rolname) FROM mine
  UNION ALL
    SELECT 0::oid, 'PUBLIC'
),
-- From which schemas it can name things.
usable(oid) AS (
    SELECT n.oid FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
     WHERE a.privilege_type = 'USAGE' AND a.grantee IN (SELECT oid FROM grantee)
)

--@ superuser
SELECT 'is a superuser, or can become one', 'role ' || quote_ident(mine.rolname), '',
       CASE WHEN mine.rolname = session_user
            THEN format('ALTER ROLE %I NOSUPERUSER;', mine.rolname)
            ELSE (SELECT string_agg(format('REVOKE %I FROM %I;', mine.rolname, holder.rolname), ' ')
                    FROM pg_auth_members m JOIN mine holder ON holder.oid = m.member
                   WHERE m.roleid = mine.oid) END,
       ''
  FROM mine JOIN pg_roles r ON r.oid = mine.oid
 WHERE r.rolsuper

--@ attributes
SELECT has.right_, 'role ' || quote_ident(mine.rolname), '',
       CASE WHEN mine.rolname = session_user
            THEN format('ALTER ROLE %I %s;', mine.rolname, has.without)
            ELSE (SELECT string_agg(format('REVOKE %I FROM %I;', mine.rolname, holder.rolname), ' ')
                    FROM pg_auth_members m JOIN mine holder ON holder.oid = m.member
                   WHERE m.roleid = mine.oid) END,
       ''
  FROM mine JOIN pg_roles r ON r.oid = mine.oid,
       LATERAL (VALUES ('may create roles', 'NOCREATEROLE', r.rolcreaterole),
                       ('may create databases', 'NOCREATEDB', r.rolcreatedb),
                       ('may replicate', 'NOREPLICATION', r.rolreplication),
                       ('bypasses row security', 'NOBYPASSRLS', r.rolbypassrls)
               ) AS has(right_, without, yes)
 WHERE has.yes

--@ memberships
-- Roles that PostgreSQL itself defines. One that is not listed here is of a later version.
SELECT 'is a member of', 'role ' || quote_ident(mine.rolname), '',
       (SELECT string_agg(format('REVOKE %I FROM %I;', mine.rolname, holder.rolname), ' ')
          FROM pg_auth_members m JOIN mine holder ON holder.oid = m.member
         WHERE m.roleid = mine.oid),
       ''
  FROM mine
 WHERE mine.rolname ~ '^pg_'
   AND NOT (mine.rolname IN ('pg_read_all_data', 'pg_monitor', 'pg_read_all_settings',
                             'pg_read_all_stats', 'pg_stat_scan_tables')
            AND :class <> 'connect')
   AND NOT (mine.rolname IN ('pg_write_all_data', 'pg_maintain') AND :class = 'write')

--@ ownership
SELECT 'owns', pg_describe_object(d.classid, d.objid, d.objsubid),
       CASE WHEN mine.rolname = session_user THEN '' ELSE quote_ident(mine.rolname) END,
       CASE WHEN mine.rolname = session_user
            THEN format('REASSIGN OWNED BY %I TO CURRENT_USER;', mine.rolname)
            ELSE (SELECT string_agg(format('REVOKE %I FROM %I;', mine.rolname, holder.rolname), ' ')
                    FROM pg_auth_members m JOIN mine holder ON holder.oid = m.member
                   WHERE m.roleid = mine.oid) END,
       ''
  FROM pg_shdepend d JOIN mine ON mine.oid = d.refobjid
 WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o'
   AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
 ORDER BY 2

--@ containers
SELECT 'has ' || string_agg(given.privilege, ', ') || ' on', given.kind || ' ' || given.name,
       grantee.name,
       format('REVOKE %s ON %s %s FROM %s;', string_agg(given.privilege, ', '), upper(given.kind),
              given.name, grantee.name),
       ''
  FROM (
    SELECT 'database' AS kind, quote_ident(d.datname) AS name, a.privilege_type AS privilege,
           a.grantee
      FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
     WHERE d.datname = current_database() AND a.grantee <> d.datdba
       AND a.privilege_type IN ('CREATE', 'TEMPORARY')
    UNION ALL
    SELECT 'schema', quote_ident(n.nspname), a.privilege_type, a.grantee
      FROM pg_namespace n, aclexplode(n.nspacl) a
     WHERE a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner
       AND n.nspname !~ '^pg_(toast_)?temp_'
    UNION ALL
    SELECT 'tablespace', quote_ident(t.spcname), a.privilege_type, a.grantee
      FROM pg_tablespace t, aclexplode(t.spcacl) a
     WHERE a.grantee <> t.spcowner
    UNION ALL
    SELECT 'foreign data wrapper', quote_ident(w.fdwname), a.privilege_type, a.grantee
      FROM pg_foreign_data_wrapper w, aclexplode(w.fdwacl) a
     WHERE a.grantee <> w.fdwowner
    UNION ALL
    SELECT 'foreign server', quote_ident(s.srvname), a.privilege_type, a.grantee
      FROM pg_foreign_server s, aclexplode(s.srvacl) a
     WHERE a.grantee <> s.srvowner
  ) AS given JOIN grantee ON grantee.oid = given.grantee
 GROUP BY given.kind, given.name, grantee.name
 ORDER BY 2

--@ parameters
-- PostgreSQL 15 and later.
SELECT 'has ' || a.privilege_type || ' on', 'parameter ' || p.parname, grantee.name,
       format('REVOKE %s ON PARAMETER %s FROM %s;', a.privilege_type, p.parname, grantee.name), ''
  FROM pg_parameter_acl p, aclexplode(p.paracl) a JOIN grantee ON grantee.oid = a.grantee
 ORDER BY 2

--@ relations
-- pg_settings may be updated by everybody: that is SET by another name, and lasts no longer.
SELECT 'has ' || string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) || ' on',
       CASE WHEN c.relkind = 'S' THEN 'sequence ' ELSE 'table ' END || c.oid::regclass,
       grantee.name,
       format('REVOKE %s ON %s %s FROM %s;',
              string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type),
              CASE WHEN c.relkind = 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
              c.oid::regclass, grantee.name),
       ''
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
       aclexplode(c.relacl) a JOIN grantee ON grantee.oid = a.grantee
 WHERE a.grantee <> c.relowner
   AND NOT (c.oid = 'pg_catalog.pg_settings'::regclass AND a.privilege_type = 'UPDATE')
   AND CASE
       WHEN n.nspname IN ('pg_catalog', 'information_schema')
       THEN a.privilege_type <> 'SELECT'
       WHEN :class = 'connect' THEN true
       WHEN :class = 'read' THEN a.privilege_type <> 'SELECT'
       ELSE a.privilege_type = 'TRIGGER' END
 GROUP BY c.oid, c.relkind, grantee.name
 ORDER BY 2

--@ columns
SELECT 'has ' || a.privilege_type || ' on',
       'columns ' || string_agg(quote_ident(t.attname), ', ') || ' of table '
           || c.oid::regclass,
       grantee.name,
       format('REVOKE %s (%s) ON TABLE %s FROM %s;', a.privilege_type,
              string_agg(quote_ident(t.attname), ', '), c.oid::regclass, grantee.name),
       ''
  FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid
       JOIN pg_namespace n ON n.oid = c.relnamespace,
       aclexplode(t.attacl) a JOIN grantee ON grantee.oid = a.grantee
 WHERE a.grantee <> c.relowner AND NOT t.attisdropped AND :class <> 'write'
   AND (a.privilege_type <> 'SELECT'
        OR (:class = 'connect' AND n.nspname NOT IN ('pg_catalog', 'information_schema')))
 GROUP BY c.oid, a.privilege_type, grantee.name
 ORDER BY 2

--@ large objects
SELECT 'has ' || a.privilege_type || ' on', 'large object ' || l.oid, grantee.name,
       format('REVOKE %s ON LARGE OBJECT %s FROM %s;', a.privilege_type, l.oid, grantee.name), ''
  FROM pg_largeobject_metadata l, aclexplode(l.lomacl) a JOIN grantee ON grantee.oid = a.grantee
 WHERE a.grantee <> l.lomowner AND :class <> 'write'
   AND (a.privilege_type <> 'SELECT' OR :class = 'connect')
 ORDER BY 2

--@ built-in functions
-- Which of these are too much, `builtins.txt` says. The object's last word is the function's name.
SELECT 'may call', 'function pg_catalog.' || p.oid::regprocedure, grantee.name,
       format('REVOKE EXECUTE ON FUNCTION pg_catalog.%s FROM %s;', p.oid::regprocedure,
              grantee.name),
       p.proname
  FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
       JOIN grantee ON grantee.oid = a.grantee
 WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.provolatile = 'v' AND p.prokind <> 'a'
   AND NOT EXISTS (SELECT FROM pg_type t
                    WHERE t.oid = ANY (p.proargtypes || p.prorettype) AND t.typtype = 'p'
                      AND t.typname ~ '(^internal|trigger|_handler)$')
 ORDER BY 2

--@ functions of others' rights
-- SECURITY DEFINER, and languages that are not held to the caller's rights. A function's rights are
-- also at work in an aggregate made of it. One in a schema that the account cannot use is out of
-- reach, unless something refers to it that may be within reach.
SELECT DISTINCT
       CASE WHEN part.prosecdef
            THEN 'may call, with the rights of ' || quote_ident(owner.rolname) || ','
            ELSE 'may call, in the untrusted language ' || l.lanname || ',' END,
       'function ' || p.oid::regprocedure, grantee.name,
       format('REVOKE EXECUTE ON ROUTINE %s FROM %s;', p.oid::regprocedure, grantee.name),
       'function ' || p.oid::regprocedure
  FROM (SELECT oid AS whole, oid AS part FROM pg_proc WHERE prokind <> 'a'
        UNION ALL
        SELECT g.aggfnoid, f.oid
          FROM pg_aggregate g,
               unnest(ARRAY[g.aggtransfn, g.aggfinalfn, g.aggcombinefn, g.aggserialfn,
                            g.aggdeserialfn, g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn]::oid[])
                   AS f(oid)) AS made
       JOIN pg_proc p ON p.oid = made.whole
       JOIN pg_proc part ON part.oid = made.part
       JOIN pg_language l ON l.oid = part.prolang
       JOIN pg_roles owner ON owner.oid = part.proowner,
       aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
       JOIN grantee ON grantee.oid = a.grantee
 WHERE (part.prosecdef OR NOT l.lanpltrusted AND l.lanname NOT IN ('internal', 'c'))
   AND a.grantee <> p.proowner
   AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
   AND (p.pronamespace IN (SELECT oid FROM usable)
        OR EXISTS (SELECT FROM pg_depend d
                    WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid
                      AND d.classid NOT IN ('pg_trigger'::regclass, 'pg_event_trigger'::regclass)))
 ORDER BY 2

--@ native functions
-- C runs within the server, past its rights. Which extensions are known, `builtins.txt` says; what one of
-- them keeps from PUBLIC is a function of its own here.
SELECT 'may call' || CASE WHEN name IS NULL THEN '' ELSE ' ' || count(DISTINCT oid) || ' functions, such as '
           || min(oid::regprocedure::text) || ', of' END,
       coalesce(name, 'function ' || min(oid::regprocedure::text)),
       string_agg(DISTINCT grantee, ', '),
       CASE WHEN count(DISTINCT oid) <= 20
            THEN format('REVOKE EXECUTE ON ROUTINE %s FROM %s;',
                        string_agg(DISTINCT oid::regprocedure::text, ', '),
                        string_agg(DISTINCT grantee, ', '))
            ELSE format('DO $$DECLARE f regprocedure; BEGIN FOR f IN SELECT objid::regprocedure '
                        'FROM pg_depend WHERE classid = ''pg_proc''::regclass AND refobjid = '
                        '(SELECT oid FROM pg_extension WHERE extname = %L) LOOP EXECUTE format('
                        '''REVOKE EXECUTE ON ROUTINE %%s FROM %s'', f); END LOOP; END$$;',
                        substr(name, length('extension ') + 1), string_agg(DISTINCT grantee, ', '))
       END,
       coalesce(name, 'function ' || min(oid::regprocedure::text))
  FROM (
    SELECT p.oid, grantee.name AS grantee,
           CASE WHEN i.objoid IS NULL THEN 'extension ' || e.extname END AS name
      FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
           LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                                AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
           LEFT JOIN pg_extension e ON e.oid = d.refobjid
           LEFT JOIN pg_init_privs i ON i.classoid = 'pg_proc'::regclass AND i.objoid = p.oid
                                    AND i.privtype = 'e',
           aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
           JOIN grantee ON grantee.oid = a.grantee
     WHERE l.lanname IN ('c', 'internal') AND p.prokind <> 'a'
       AND p.pronamespace <> 'pg_catalog'::regnamespace
       AND p.pronamespace IN (SELECT oid FROM usable)
       AND NOT EXISTS (SELECT FROM pg_type t
                        WHERE t.oid = ANY (p.proargtypes || p.prorettype) AND t.typtype = 'p'
                          AND t.typname ~ '(^internal|trigger|_handler)$')
  ) AS native
 GROUP BY name, CASE WHEN name IS NULL THEN oid END
 ORDER BY 2

--@ rights to come
SELECT 'will have ' || string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) || ' on',
       CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' ELSE 'schemas' END
           || ' that ' || quote_ident(owner.rolname) || ' makes'
           || coalesce(' in schema ' || quote_ident(n.nspname), ''),
       grantee.name,
       format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE %s ON %s FROM %s;', owner.rolname,
              coalesce(' IN SCHEMA ' || quote_ident(n.nspname), ''),
              string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type),
              CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES'
                   ELSE 'SCHEMAS' END,
              grantee.name),
       ''
  FROM pg_default_acl d JOIN pg_roles owner ON owner.oid = d.defaclrole
       LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace,
       aclexplode(d.defaclacl) a JOIN grantee ON grantee.oid = a.grantee
 WHERE a.grantee <> d.defaclrole
   AND CASE d.defaclobjtype
       WHEN 'r' THEN CASE :class WHEN 'connect' THEN true
                                 WHEN 'read' THEN a.privilege_type <> 'SELECT'
                                 ELSE a.privilege_type = 'TRIGGER' END
       WHEN 'S' THEN :class = 'connect' OR :class = 'read' AND a.privilege_type <> 'SELECT'
       WHEN 'n' THEN a.privilege_type = 'CREATE'
       ELSE false END
 GROUP BY d.defaclobjtype, owner.rolname, n.nspname, grantee.name
 ORDER BY 2
