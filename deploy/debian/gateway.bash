# Completion of gateway(1) for bash.
complete -W 'check-config health --help --version' gateway
