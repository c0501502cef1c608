-- The policies that tests/rls.rs expects on the bucket named by SUPAFS_TEST_RLS_BUCKET: a signed-in user may do
-- everything below the folder named by their id, and only read what lies below shared/.
--
-- Plain SQL, safe to run again. On a Supabase project: paste it into the SQL editor, or
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f tests/rls.sql
-- The bucket's name stands in one place, below.

do $policies$
declare
    bucket constant text := 'supafs-rls';
begin
    insert into storage.buckets (id, name, public)
    values (bucket, bucket, false)
    on conflict do nothing;

    execute format('drop policy if exists %I on storage.objects', bucket || ': own folder');
    execute format(
        $sql$
        create policy %1$I on storage.objects
            for all to authenticated
            using (bucket_id = %2$L and (storage.foldername(name))[1] = (select auth.uid()::text))
            with check (bucket_id = %2$L and (storage.foldername(name))[1] = (select auth.uid()::text))
        $sql$,
        bucket || ': own folder', bucket);

    execute format('drop policy if exists %I on storage.objects', bucket || ': read shared');
    execute format(
        $sql$
        create policy %1$I on storage.objects
            for select to authenticated
            using (bucket_id = %2$L and (storage.foldername(name))[1] = 'shared')
        $sql$,
        bucket || ': read shared', bucket);
end
$policies$;
