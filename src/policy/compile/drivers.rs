//! What a route opens: its daemon, those of single drivers, and the values that templates among them
//! are chosen by.

use super::{Compiler, Scope};
use crate::policy::raw;
use crate::policy::report::{Problem, quoted};
use crate::policy::route::{Open, OpenDriver};
use crate::policy::template::Destination;
use crate::policy::uri::{Uri, UriPattern};
use crate::policy::yaml::Pointer;
use crate::protocol::driver::Driver;

impl Compiler<'_, '_> {
    pub(super) fn open(
        &mut self,
        route: &raw::Route,
        name: &raw::Name,
        at: &Pointer,
        scope: &Scope<'_>,
    ) -> Option<Open> {
        let destination = self.destination_named(name, &at.key("upstream"), scope);
        let opens = self.opens(route.open.as_deref(), &at.key("open"));
        let drivers = match &route.drivers {
            Some(drivers) => self.drivers(drivers, name, &at.key("drivers"), scope),
            None => Some(Vec::new()),
        };
        opens?;
        Some(Open {
            destination: destination?,
            uri: route.open.clone(),
            drivers: drivers?,
        })
    }

    fn drivers(
        &mut self,
        drivers: &raw::Drivers,
        primary: &raw::Name,
        at: &Pointer,
        scope: &Scope<'_>,
    ) -> Option<Vec<OpenDriver>> {
        let given = Driver::ALL.map(|driver| (driver, of_driver(drivers, driver)));
        let given = given
            .into_iter()
            .filter_map(|(driver, given)| Some((driver, given?)));
        let mut compiled = Vec::new();
        for (driver, given) in given {
            let settings = given.settings();
            let at = at.key(driver.scheme());
            let (at_name, at_open) = match given {
                raw::DriverRoute::Upstream(_) => (at.clone(), at.clone()),
                raw::DriverRoute::Settings(_) => (at.key("upstream"), at.key("open")),
            };
            let destination = self.destination_named(&settings.upstream, &at_name, scope);
            let opens = self.opens(settings.open.as_deref(), &at_open);
            if settings.upstream.0 == primary.0 {
                self.problems.push(
                    Problem::warning(
                        "idle-driver",
                        Some(self.document.place(&at_name)),
                        format!(
                            "{} is the route's own upstream, which serves this driver anyway",
                            quoted(&primary.0)
                        ),
                    )
                    .help("remove it"),
                );
            }
            compiled.push(destination.zip(opens).map(|(destination, ())| OpenDriver {
                driver,
                destination,
                uri: settings.open.clone(),
                fallback: settings.fallback.unwrap_or(false),
            }));
        }
        // What it has may be unknown.
        if compiled.is_empty() && !self.flaws.incomplete(at) {
            let place = Some(self.document.key_place(at));
            let help = "name the daemons of drivers, `{ network: UPSTREAM }`, or remove it";
            self.problems
                .push(Problem::error("empty-value", place, "`drivers` names none").help(help));
            return None;
        }
        compiled.into_iter().collect()
    }

    fn destination_named(
        &mut self,
        name: &raw::Name,
        at: &Pointer,
        scope: &Scope<'_>,
    ) -> Option<Destination> {
        let place = self.resolve("upstream", &name.0, at, &scope.upstream_names)?;
        scope.upstreams.get(place)?.value.clone()
    }

    /// Whether a URI can be opened, if there is one.
    fn opens(&mut self, uri: Option<&str>, at: &Pointer) -> Option<()> {
        let Some(Err(fault)) = uri.map(Uri::parse) else {
            return Some(());
        };
        self.error("uri", at, format!("this URI cannot be opened: {fault}"));
        None
    }

    /// Complains of URIs that lack what a template asks for.
    pub(super) fn values_of(&mut self, open: &Open, uris: &[UriPattern], at: &Pointer) {
        for (index, uri) in uris.iter().enumerate() {
            let mut missing = Vec::new();
            for destination in open.destinations() {
                for name in destination.names() {
                    if uri.has_value(name) || missing.contains(&name) {
                        continue;
                    }
                    missing.push(name);
                    let upstream = quoted(&destination.upstream().name);
                    let place = Some(self.document.place(&at.key("uri").index(index)));
                    let message =
                        format!("this URI does not say the {} of {upstream}", quoted(name));
                    let help = format!(
                        "write the parameter `{name}=*` in it; `values` of {upstream} says what \
                         clients may ask for"
                    );
                    self.problems
                        .push(Problem::error("template", place, message).help(help));
                }
            }
        }
    }
}

fn of_driver(drivers: &raw::Drivers, driver: Driver) -> Option<&raw::DriverRoute> {
    let given = match driver {
        Driver::Network => &drivers.network,
        Driver::Storage => &drivers.storage,
        Driver::Nodedev => &drivers.nodedev,
        Driver::Nwfilter => &drivers.nwfilter,
        Driver::Secret => &drivers.secret,
        Driver::Interface => &drivers.interface,
    };
    given.as_ref()
}
