//! The page that the demo prints: what to try, and where.

use super::code;
use super::stage::Stage;
use crate::{say, terminal};

/// Prints it.
pub(super) fn print(stage: &Stage) {
    say::line(format_args!(
        "\n{}  everything runs on this machine; Ctrl-C leaves nothing",
        say::bold("Curfew demo")
    ));
    who(stage);
    in_a_browser(stage);
    on_the_command_line(stage);
    prove_it(stage);
    say::line(format_args!(
        "\n  configuration and policy: {} and policy.cedar beside it\n",
        stage.config.display()
    ));
}

fn heading(text: &str) {
    say::line(format_args!("\n{}", say::bold(text)));
}

fn who(stage: &Stage) {
    heading("Who");
    say::line(format_args!(
        "  {:<5} {:<9} {:<18} {:<10} limits",
        "name", "role", "password", "code now"
    ));
    for user in &stage.users {
        let limits = match user.role {
            "analyst" => "idle 60 s, new sign-in after 90 s, over after 5 min; reads only",
            _ => "idle 15 min, new sign-in after 1 h; reads, writes, sees and ends sessions",
        };
        let code = code::code(&user.secret, 0).unwrap_or_default();
        say::line(format_args!(
            "  {:<5} {:<9} {:<18} {:<10} {limits}",
            user.name, user.role, user.password, code
        ));
    }
    say::line(format_args!(
        "  The code of the moment: curfew demo code ana --port {}   (each works once)",
        stage.ports.web
    ));
    say::line("  Or scan ana's secret:");
    if let Ok(ana) = stage.user("ana") {
        if say::to_terminal()
            && let Some(code) = terminal::qr_code(&ana.uri)
        {
            say::line(code);
        }
        say::line(format_args!("  {}", ana.secret));
    }
}

fn in_a_browser(stage: &Stage) {
    let ca = stage.ca.display();
    heading("In a browser");
    say::line(format_args!("  web app   {}", stage.shop()));
    say::line(format_args!("  API       {}/api/orders", stage.api()));
    say::line(format_args!("  Curfew    {}", stage.portal()));
    say::line(format_args!(
        "  Your browser does not know the demo's own authority: accept its warning once per name,\n  \
         or let it trust {ca} for today."
    ));
    say::line(
        "  Sign in as ana, leave the page alone, and watch clock and echo being cut after 60 s.\n  \
         Sign in as dan in another browser and end ana's session under “Live sessions”.",
    );
}

fn on_the_command_line(stage: &Stage) {
    let ca = stage.ca.display();
    heading("On the command line");
    say::line(format_args!(
        "  curfew login --server {} --ca {ca}",
        stage.portal()
    ));
    say::line("  curfew psql orders");
    say::line("    select city, count(*) from customers group by 1;   -- ana may");
    say::line("    insert into customers (name, city) values ('x', 'y');   -- only dan may");
    say::line("  curfew connect api          # a ready curl line");
    say::line("  curfew sessions list        # as dan: everybody's");
    say::line("  curfew log tail -f          # as dan");
    say::line("  With any other client, and the password of `curfew connect orders`:");
    say::line(format_args!(
        "  psql \"host=localhost port={} dbname=orders user=ana sslmode=verify-full sslrootcert={ca}\"",
        stage.ports.postgres
    ));
}

fn prove_it(stage: &Stage) {
    heading("Prove it");
    say::line(format_args!(
        "  curfew-verify --key '{}' {}",
        stage.key,
        stage.data().join("ledger").display()
    ));
    say::line(format_args!(
        "  curfew log verify --config {}",
        stage.config.display()
    ));
    if let Some(id) = stage.curfew.id() {
        say::line(format_args!(
            "  kill -9 {id}    # it is started again; no recorded entry is lost"
        ));
    }
}
