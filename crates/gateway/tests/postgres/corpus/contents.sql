-- A database with what a reader might use to write, run or see what is not for readers.
--
-- {db} is its name, {read} and {connect} the accounts, {owner} a role that owns the application's
-- objects. What holds SECRET is for nobody who may only connect; HIDDEN is for no reader either.

create role {owner};
create schema app authorization {owner};
create schema payroll authorization {owner};
grant create on schema public to {owner};
set role {owner};

create table public.orders (id int primary key, item text, n int);
insert into public.orders values (1, 'SECRET-lamp', 1), (2, 'SECRET-wick', 2);
create sequence public.orders_id_seq start 100;
create table public.audit (line text);
create table payroll.salaries (who text, amount int);
insert into payroll.salaries values ('HIDDEN-ana', 7000);

-- Row security: a reader sees one tenant.
create table app.tenants (tenant text, fact text);
insert into app.tenants values ('a', 'SECRET-a'), ('b', 'HIDDEN-b');
alter table app.tenants enable row level security;
create policy one on app.tenants for select using (tenant = 'a');

-- Functions that write, with labels that say otherwise.
create function app.writes(t text) returns text language plpgsql volatile as
  $$begin insert into public.audit values (t); return t; end$$;
create function app.immutable_writes(t text) returns text language plpgsql immutable as
  $$begin perform app.writes(t); return t; end$$;
create function app.immutable_int(t text) returns int language plpgsql immutable as
  $$begin delete from public.orders; return 1; end$$;
create function app.stable_writes(t text) returns text language plpgsql stable as
  $$begin perform app.writes(t); return t; end$$;
create function app.sql_writes(t text) returns text language sql volatile as
  $$insert into public.audit values (t) returning line$$;
create function app.run(t text) returns void language plpgsql as $$begin execute t; end$$;
create function app.run_immutable(t text) returns int language plpgsql immutable as
  $$begin execute t; return 1; end$$;
create function app.rows_of(t text) returns setof record language plpgsql as
  $$begin return query execute t; end$$;
create procedure app.proc_writes() language plpgsql as $$begin delete from public.orders; commit; end$$;

-- Functions of row types, for attribute notation.
create function public.wipe(o public.orders) returns int language sql as
  $$delete from public.orders where id = $1.id returning 1$$;
create function public.stamp(t text) returns text language sql as
  $$insert into public.audit values ($1) returning line$$;

-- Overloads of built-in names that fit an argument better than the built-in does.
create function public.lower(t varchar) returns text language sql as
  $$insert into public.audit values ($1) returning line$$;
create function public.log(t text) returns text language sql as
  $$insert into public.audit values ($1) returning line$$;
create function public.abs(t text) returns text language sql as
  $$delete from public.orders returning item$$;
create function public.count(t text) returns bigint language sql as
  $$delete from public.orders returning 1::bigint$$;
create function public.now(t text) returns text language sql as
  $$delete from public.orders returning item$$;

-- Operators, casts, domains, aggregates, ranges.
create function app.op_writes(a text, b text) returns boolean language plpgsql immutable as
  $$begin insert into public.audit values (a || b); return true; end$$;
create operator public.=== (leftarg = text, rightarg = text, function = app.op_writes);
create operator public.+ (leftarg = text, rightarg = text, function = app.op_writes);
create type app.coin as (v int);
create function app.to_coin(t text) returns app.coin language plpgsql immutable as
  $$begin insert into public.audit values (t); return row(1)::app.coin; end$$;
create cast (text as app.coin) with function app.to_coin(text) as assignment;
create function app.check_writes(t text) returns boolean language plpgsql immutable as
  $$begin insert into public.audit values (t); return true; end$$;
create domain app.checked as text check (app.check_writes(value));
create function app.step(s int, t text) returns int language plpgsql as
  $$begin insert into public.audit values (t); return s + 1; end$$;
create aggregate app.gather(text) (sfunc = app.step, stype = int, initcond = '0');
create type app.mood as enum ('fine', 'bad');

-- Views, rules and triggers.
create view app.v_writes as select app.writes('view') as w, id from public.orders;
create view app.v_next as select nextval('public.orders_id_seq') as n;
create view app.v_plain as select * from public.orders;
create view app.v_barrier with (security_barrier) as select * from public.orders where n > 0;
create view app.v_instead as select 1 as a;
create rule instead as on insert to app.v_instead do instead insert into public.audit values ('rule');
create materialized view app.m_orders as select * from public.orders;
create function app.on_change() returns trigger language plpgsql security definer as
  $$begin insert into public.audit values ('trigger'); return new; end$$;
create trigger change before insert or update on public.orders for each row execute function app.on_change();
create index orders_item on public.orders (upper(item));
create table app.generated (a int, b int generated always as (a * 2) stored);

-- With the owner's rights, and kept from everybody.
create function app.definer() returns text language sql security definer as
  $$insert into public.audit values ('definer') returning line$$;
revoke execute on function app.definer() from public;
reset role;

-- Large objects, other servers, extensions.
select lo_from_bytea(4242, 'HIDDEN-large');
create extension tablefunc schema app;
create extension postgres_fdw schema app;
create server away foreign data wrapper postgres_fdw options (dbname '{db}', host '{host}', port '{port}');
create foreign table app.away_orders (id int) server away options (schema_name 'public', table_name 'orders');
create extension dblink schema app;
do $$declare f regprocedure; begin
  for f in select objid::regprocedure from pg_depend where refobjid = (select oid from pg_extension where extname = 'dblink')
      and classid = 'pg_proc'::regclass loop
    execute format('revoke execute on function %s from public', f);
  end loop;
end$$;
create extension lo schema app;
create function app.on_ddl() returns event_trigger language plpgsql as $$begin null; end$$;
create publication everything for all tables;
comment on table public.orders is 'as it was';
