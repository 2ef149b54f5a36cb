# Completion of gateway(1) for bash.
complete -W 'check-config --help --version' gateway
