-- Every change of a row of "products" is notified, with the key of the row and nothing else:
-- whoever is told reads the row with rights of its own, and gets its newest state.
-- An empty payload says: anything may have changed, read everything.
-- PostgreSQL 13 has no CREATE OR REPLACE TRIGGER: there, DROP TRIGGER IF EXISTS comes before it.

CREATE TABLE IF NOT EXISTS products (
    sku text PRIMARY KEY CHECK (sku <> ''),
    price numeric NOT NULL
);

CREATE OR REPLACE FUNCTION notify_products() RETURNS trigger
LANGUAGE plpgsql
SECURITY INVOKER  -- it needs no rights but those of the session that writes
SET search_path = pg_catalog, pg_temp  -- so that nobody puts a pg_notify of theirs in between
AS $$
DECLARE
    key text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_catalog.pg_notify('products'::text, ''::text);
        RETURN NULL;
    END IF;
    -- The old key and the new one. Where they are equal, PostgreSQL sends one notification for
    -- both, as it does for several changes of one row in one transaction.
    FOREACH key IN ARRAY ARRAY[OLD.sku, NEW.sku]::text[] LOOP
        CONTINUE WHEN key IS NULL;
        -- A payload of more than 7,999 bytes is an error, and would abort what the user does.
        IF pg_catalog.octet_length(key) > 7999 THEN
            key := '';
        END IF;
        PERFORM pg_catalog.pg_notify('products'::text, key);
    END LOOP;
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON FUNCTION notify_products() FROM PUBLIC;

CREATE OR REPLACE TRIGGER notify_row
AFTER INSERT OR UPDATE OR DELETE ON products
FOR EACH ROW EXECUTE FUNCTION notify_products();

CREATE OR REPLACE TRIGGER notify_truncate
AFTER TRUNCATE ON products
FOR EACH STATEMENT EXECUTE FUNCTION notify_products();
