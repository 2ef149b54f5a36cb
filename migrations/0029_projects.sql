-- Projects. Works with the code before it, which does not know the table.

CREATE TABLE projects (
    project_id  uuid        NOT NULL PRIMARY KEY,
    change_id   uuid        NOT NULL,
    changed_at  timestamptz NOT NULL,
    changed_by  text        NOT NULL,
    name        text        NOT NULL,
    members     text[]      NOT NULL,
    is_disabled boolean     NOT NULL
);

COMMENT ON TABLE  projects IS 'Projects: groups of users whose keys are counted together. Filled by the events ProjectChanged.';
COMMENT ON COLUMN projects.project_id  IS 'The project, a UUIDv7 with the time of its creation.';
COMMENT ON COLUMN projects.change_id   IS 'The change that the settings come from, a UUIDv7. Of two changes, the greater id applies, as a whole.';
COMMENT ON COLUMN projects.changed_at  IS 'The time of that change.';
COMMENT ON COLUMN projects.changed_by  IS 'The administrator who made that change; cli for the command line.';
COMMENT ON COLUMN projects.name        IS 'The name, for people.';
COMMENT ON COLUMN projects.members     IS 'The users whose keys of the project are accepted, in the order of their ids.';
COMMENT ON COLUMN projects.is_disabled IS 'True if the keys of the project are refused.';

CREATE INDEX projects_by_member ON projects USING gin (members);
CREATE INDEX projects_by_change_time ON projects (changed_at DESC, change_id DESC);

COMMENT ON INDEX projects_by_member      IS 'The projects of a user.';
COMMENT ON INDEX projects_by_change_time IS 'The audit view: projects that were changed.';

-- The usage of a project, for its members.
CREATE INDEX key_slots_by_project ON key_slots (project_id, slot_at);
COMMENT ON INDEX key_slots_by_project IS 'The usage of one project.';

CREATE INDEX api_keys_by_project ON api_keys (project_id, key_id) WHERE project_id IS NOT NULL;
COMMENT ON INDEX api_keys_by_project IS 'The keys of a project.';
