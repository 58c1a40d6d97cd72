"""orchestratord and orchestratorctl, as they are typed and as systemd starts them."""
