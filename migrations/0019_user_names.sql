-- One normal form of each login name, so that two names that look the same, or differ in case alone, are one name.

ALTER TABLE users ADD COLUMN name_key text UNIQUE;

COMMENT ON COLUMN users.name_key IS 'The normal form of the name: NFKC, case-folded, without invisible characters. `recorder migrate` fills it in for accounts that were made before. Null: another account, made earlier, has this form; the account is reached by its exact name.';
