//! The demo's node: a client, svca, svcb in versions, and msgd outside the mesh.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::agent::{HttpReply, HttpRequest, Load, LoadReport};
use testbed::{Agent, Node, Pod, Proc, Weir, tool_binary};

/// Where the applications listen in their pods.
const APP_PORT: u16 = 8080;
/// The port of the external service.
const MSGD_PORT: u16 = 9997;
/// Virtual addresses that only weir knows.
const SVCA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1));
const SVCB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 2));
/// Connections that the client keeps.
const CONNECTIONS: u64 = 4;

/// A pod with its application.
struct Member {
    // The application ends before its pod goes.
    app: Option<Proc>,
    pod: Pod,
}

/// Everything that the demo runs.
pub(super) struct Mesh<'a> {
    members: BTreeMap<String, Member>,
    outside: Member,
    pub(super) weir: Weir<'a>,
    node: &'a Node,
    /// `/pay` requests that the client has sent so far.
    pub(super) paid: u64,
    /// Those of them that msgd was not asked for, because it was still denied.
    pub(super) denied: u64,
}

impl<'a> Mesh<'a> {
    /// Pods, applications and the daemon; nothing is enrolled yet.
    pub(super) fn new(node: &'a Node) -> Result<Self> {
        let outside = node.outside("msgd")?;
        let app = outside.app(
            &[
                "msgd",
                "--listen",
                &outside.at(MSGD_PORT).to_string(),
                "--pod",
                "msgd",
            ],
            MSGD_PORT,
        )?;
        let outside = Member {
            app: Some(app),
            pod: outside,
        };
        let weir = Weir::start(node)?;
        let members = BTreeMap::new();
        let mut mesh = Self {
            members,
            outside,
            weir,
            node,
            paid: 0,
            denied: 0,
        };
        let client = Member {
            app: None,
            pod: node.pod("client")?,
        };
        mesh.members.insert("client".to_owned(), client);
        mesh.start_svca()?;
        for (name, version) in [
            ("svcb-1", "v0.1"),
            ("svcb-2", "v0.1"),
            ("svcb-3", "v0.2"),
            ("svcb-4", "v0.2"),
        ] {
            mesh.start_svcb(name, version)?;
        }
        Ok(mesh)
    }

    fn start_svca(&mut self) -> Result<()> {
        let pod = self.node.pod("svca")?;
        pod.set_hosts(&[("svcb", SVCB)])?;
        let listen = pod.at(APP_PORT).to_string();
        let args = [
            "svca",
            "--listen",
            &listen,
            "--pod",
            "svca",
            "--svcb",
            "http://svcb",
        ];
        let app = Some(pod.app(&args, APP_PORT)?);
        self.members.insert("svca".to_owned(), Member { app, pod });
        Ok(())
    }

    /// A pod of svcb that serves, but is not known to weir.
    pub(super) fn start_svcb(&mut self, name: &str, version: &str) -> Result<()> {
        let pod = self.node.pod(name)?;
        let listen = pod.at(APP_PORT).to_string();
        let msgd = format!("http://{}", self.msgd());
        let args = [
            "svcb",
            "--listen",
            &listen,
            "--pod",
            name,
            "--version",
            version,
            "--msgd",
            &msgd,
        ];
        let app = Some(pod.app(&args, APP_PORT)?);
        self.members.insert(name.to_owned(), Member { app, pod });
        Ok(())
    }

    /// Enrolls a pod with the labels of its application.
    pub(super) fn enroll(&self, name: &str, labels: &[&str]) -> Result<()> {
        let output = self.weir.try_enroll(&self.member(name)?.pod, labels);
        ensure!(
            output.status == 0,
            "weir enroll {name}: {}{}",
            output.stdout,
            output.stderr
        );
        Ok(())
    }

    /// Enrolls everything but msgd, and declares the services, their ports unnamed.
    pub(super) fn enroll_all(&self) -> Result<()> {
        self.enroll("client", &["app=client"])?;
        self.enroll("svca", &["app=svca", "version=v0.1"])?;
        for (name, version) in [
            ("svcb-1", "v0.1"),
            ("svcb-2", "v0.1"),
            ("svcb-3", "v0.2"),
            ("svcb-4", "v0.2"),
        ] {
            self.enroll(name, &["app=svcb", &format!("version={version}")])?;
        }
        for (name, address) in [("svca", SVCA), ("svcb", SVCB)] {
            self.apply(&format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  \
                 clusterIPs: [{address}]\n  selector: {{app: {name}}}\n  \
                 ports: [{{port: 80, targetPort: {APP_PORT}}}]\n"
            ))?;
        }
        Ok(())
    }

    /// Takes a pod of svcb out of service: nothing new, what is in flight ends, then it goes.
    pub(super) fn retire(&mut self, name: &str) -> Result<()> {
        self.weir_ok(&[
            "patch",
            "workload",
            name,
            "-p",
            r#"{"spec":{"ready":false}}"#,
        ])?;
        let mut member = self.members.remove(name).context("no such pod")?;
        if let Some(app) = &mut member.app {
            let status = app.terminate(Duration::from_secs(10))?;
            ensure!(
                status.success(),
                "{name} ended with {status}: {}",
                app.log()
            );
        }
        self.weir_ok(&["delete", "workload", name])
    }

    /// Applies documents.
    pub(super) fn apply(&self, yaml: &str) -> Result<()> {
        let output = self.weir.try_apply(yaml);
        ensure!(
            output.status == 0,
            "weir apply: {}{}",
            output.stdout,
            output.stderr
        );
        Ok(())
    }

    /// Runs a command of weir that has to succeed.
    pub(super) fn weir_ok(&self, args: &[&str]) -> Result<()> {
        let output = self.weir.cli(args)?;
        ensure!(
            output.status == 0,
            "weir {args:?}: {}{}",
            output.stdout,
            output.stderr
        );
        Ok(())
    }

    fn member(&self, name: &str) -> Result<&Member> {
        self.members
            .get(name)
            .with_context(|| format!("there is no pod {name}"))
    }

    /// How many pods are to be enrolled.
    pub(super) fn pods(&self) -> usize {
        self.members.len()
    }

    /// What acts for a pod.
    pub(super) fn agent(&self, name: &str) -> Result<&Agent> {
        Ok(self.member(name)?.pod.agent())
    }

    /// Where the external service listens.
    pub(super) fn msgd(&self) -> SocketAddr {
        self.outside.pod.at(MSGD_PORT)
    }

    /// One `/pay` of the client.
    pub(super) fn pay(&mut self) -> Result<HttpReply> {
        self.paid += 1;
        Ok(self
            .agent("client")?
            .http(SocketAddr::new(SVCA, 80), pay_request())?)
    }

    /// `count` times `/pay` over kept-alive connections; svcb's versions and pods are counted.
    pub(super) fn pay_often(&mut self, count: u64) -> Result<LoadReport> {
        self.paid += count;
        let load = Load {
            count,
            ..Self::load()
        };
        Ok(self.agent("client")?.load(load)?)
    }

    /// The client's load, until [`Mesh::stop_paying`].
    pub(super) fn start_paying(&self) -> Result<()> {
        Ok(self.agent("client")?.start_load(Self::load())?)
    }

    /// Ends the load.
    pub(super) fn stop_paying(&mut self) -> Result<LoadReport> {
        let report = self.agent("client")?.stop_load()?;
        self.paid += report.sent;
        Ok(report)
    }

    fn load() -> Load {
        Load {
            addr: SocketAddr::new(SVCA, 80),
            request: pay_request(),
            count: 0,
            connections: CONNECTIONS,
            pause_ms: 1,
            pointer: "/svcb".to_owned(),
        }
    }

    /// Prints commands for a look around.
    pub(super) fn say_what_to_try(&self) -> Result<()> {
        let tool = tool_binary()?;
        let weir = testbed::weir_binary()?;
        let client = &self.member("client")?.pod;
        println!("\nEverything runs until Ctrl-C. Try, in another terminal:\n");
        println!(
            "  export WEIR_ADMIN_SOCKET={}",
            self.weir.admin_socket().display()
        );
        for command in [
            "status",
            "workloads",
            "graph",
            "history",
            "explain client 10.96.0.1:80",
            "tap",
        ] {
            println!("  {} {command}", weir.display());
        }
        println!(
            "  {} exec --netns {} --cgroup {} -- curl -s http://{SVCA}/pay?msg=hello",
            tool.display(),
            client.netns().path().display(),
            client.cgroup().display(),
        );
        println!("  less {}", self.node.dir().join("weir.log").display());
        Ok(())
    }

    /// Ends the applications, stops and uninstalls weir.
    pub(super) fn end(self) -> Result<()> {
        let Self {
            members,
            outside,
            weir,
            ..
        } = self;
        drop((members, outside));
        weir.finish()
    }
}

fn pay_request() -> HttpRequest {
    HttpRequest::get("svca", "/pay?msg=hello")
}
