-- The policies that the tests expect on three buckets: the one named by SUPAFS_TEST_RLS_BUCKET, and those that have
-- `-lab` and `-broken` after that name.
--
-- Plain SQL, safe to run again. On a Supabase project: paste it into the SQL editor, or
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f tests/rls.sql
-- The bucket's name stands in one place, below. The stand-in has them as `Policy::user_folders`,
-- `Policy::laboratory` and `Policy::broken`.

do $policies$
declare
    bucket constant text := 'supafs-rls';
    lab constant text := bucket || '-lab';
    broken constant text := bucket || '-broken';
    b text;
    rule record;
begin
    foreach b in array array[bucket, lab] loop
        insert into storage.buckets (id, name, public) values (b, b, false) on conflict do nothing;
        -- A signed-in user may do everything below the folder named by their id, and only read what lies below
        -- shared/.
        execute format('drop policy if exists %I on storage.objects', b || ': own folder');
        execute format(
            $sql$
            create policy %1$I on storage.objects
                for all to authenticated
                using (bucket_id = %2$L and (storage.foldername(name))[1] = (select auth.uid()::text))
                with check (bucket_id = %2$L and (storage.foldername(name))[1] = (select auth.uid()::text))
            $sql$,
            b || ': own folder', b);
        execute format('drop policy if exists %I on storage.objects', b || ': read shared');
        execute format(
            $sql$
            create policy %1$I on storage.objects
                for select to authenticated
                using (bucket_id = %2$L and (storage.foldername(name))[1] = 'shared')
            $sql$,
            b || ': read shared', b);
    end loop;

    for rule in
        select * from (values
            -- By owner: everybody reads board/ and adds to it, but changes only what is theirs.
            ('read board', 'select', 'authenticated', $$(storage.foldername(name))[1] = 'board'$$),
            ('add to board', 'insert', 'authenticated',
                $$(storage.foldername(name))[1] = 'board' and owner_id = (select auth.uid()::text)$$),
            ('change own on board', 'update', 'authenticated',
                $$(storage.foldername(name))[1] = 'board' and owner_id = (select auth.uid()::text)$$),
            ('remove own from board', 'delete', 'authenticated',
                $$(storage.foldername(name))[1] = 'board' and owner_id = (select auth.uid()::text)$$),
            -- By role: public/ is read by all, and changed by whoever is signed in.
            ('read public', 'select', 'anon', $$(storage.foldername(name))[1] = 'public'$$),
            ('change public', 'all', 'public',
                $$(storage.foldername(name))[1] = 'public' and (select auth.role()) = 'authenticated'$$),
            -- By a claim: team/NAME/ belongs to those whose token says that NAME is their team.
            ('team', 'all', 'authenticated',
                $$(storage.foldername(name))[1] = 'team' and
                  (storage.foldername(name))[2] = (select auth.jwt() -> 'app_metadata' ->> 'team')$$),
            -- By extension: everybody reads notes/, and changes only what is named *.txt there.
            ('read notes', 'select', 'authenticated', $$(storage.foldername(name))[1] = 'notes'$$),
            ('change texts in notes', 'all', 'authenticated',
                $$(storage.foldername(name))[1] = 'notes' and storage.extension(name) = 'txt'$$)
        ) as rules (name, command, role, condition)
    loop
        execute format('drop policy if exists %I on storage.objects', lab || ': ' || rule.name);
        execute format(
            'create policy %I on storage.objects for %s to %I %s %s',
            lab || ': ' || rule.name, rule.command, rule.role,
            case when rule.command <> 'insert' then format('using (bucket_id = %L and %s)', lab, rule.condition) end,
            case when rule.command not in ('select', 'delete')
                then format('with check (bucket_id = %L and %s)', lab, rule.condition) end);
    end loop;

    -- A policy with a mistake: it divides by zero for names that begin with broken/. A signed-in user may do everything
    -- elsewhere in this bucket.
    insert into storage.buckets (id, name, public) values (broken, broken, false) on conflict do nothing;
    execute format('drop policy if exists %I on storage.objects', broken || ': divide by zero');
    execute format(
        $sql$
        create policy %1$I on storage.objects
            for all to authenticated
            using (case when bucket_id <> %2$L then false
                        when (storage.foldername(name))[1] = 'broken' then 1 / (length(name) - length(name)) = 1
                        else true end)
        $sql$,
        broken || ': divide by zero', broken);
end
$policies$;
