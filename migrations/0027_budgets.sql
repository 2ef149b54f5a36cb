-- Budgets among the limits of scopes. Works with the code before it, which leaves the column out: set no budgets while recorders of an
-- earlier version run, or rebuild afterwards.

ALTER TABLE limits ADD COLUMN budget jsonb;

COMMENT ON COLUMN limits.budget IS 'The money that the calls of the scope may cost in a period, as in the events LimitsChanged: the amount in nano-dollars (10^-9 US dollars), the period, its time zone, the policy, the treatment of calls without a known price, and what each gateway may spend while the broker is away.';
