# The check `units` of deploy/check-packages.sh: systemd's own rules, and the exposure of each unit.
# shellcheck shell=bash disable=SC2154

check_units() {
    local unit output
    have systemd-analyze || { skip "units: systemd-analyze is missing" && return 0; }
    for unit in "$root"/deploy/systemd/*.service; do
        # The programs and their manual pages are not installed here.
        output=$(systemd-analyze verify "$unit" 2>&1 | grep -v -e 'is not executable' -e "^[^ ]*: Command 'man " || true)
        if [ -z "$output" ]; then pass "systemd-analyze verify ${unit##*/}"; else
            printf '%s\n' "$output" >&2
            fail "systemd-analyze verify ${unit##*/}"
        fi
        expect "${unit##*/} has an exposure of at most 1.5" systemd-analyze security --offline=yes --threshold=15 "$unit"
    done
    if have systemd-sysusers && have systemd-tmpfiles; then
        need_work
        mkdir -p "$work/root/etc"
        for output in "$root"/deploy/systemd/*.sysusers; do
            expect "${output##*/} makes its user" systemd-sysusers --root="$work/root" "$output"
        done
        for output in "$root"/deploy/systemd/*.tmpfiles; do
            expect "${output##*/} makes its directories" systemd-tmpfiles --root="$work/root" --create "$output"
        done
    else
        skip "units: systemd-sysusers is missing"
    fi
}
