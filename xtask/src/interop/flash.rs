//! `cross/flash` on an image with the two partitions of Raspberry Pi OS, looked at by programs of others.
//!
//! The image is made here, from the tools that Debian makes file systems with; a card is a loop device, where root may
//! make one.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::install;
use crate::command::{in_root, output, root, run as run_command};
use crate::{Failure, Outcome};

const SECTOR: u64 = 512;
/// Sectors. One sector a cluster makes the boot partition FAT32, as on a Raspberry Pi.
const BOOT: (u64, u64) = (2_048, 163_840);
const ROOT: (u64, u64) = (BOOT.0 + BOOT.1, 65_536);
const CONFIG: &str = "# For more options see the manual\n#dtparam=i2c_arm=on\ndtparam=i2c_arm_baudrate=400000\n\
                      dtparam=audio=on\n[cm4]\notg_mode=1\n";

pub(super) fn a_card_is_ready_to_measure() -> Outcome {
    for (program, package) in [
        ("mcopy", "mtools"),
        ("mkfs.vfat", "dosfstools"),
        ("debugfs", "e2fsprogs"),
        ("xz", "xz-utils"),
        ("systemd-analyze", "systemd"),
    ] {
        install(program, package)?;
    }
    the_unit_lets_the_agent_ask_for_the_clock()?;
    let folder = tempfile::Builder::new().prefix("eden-flash-").tempdir().map_err(failed)?;
    let flash = Flash::prepare(folder.path())?;
    flash.writes_an_image()?;
    flash.refuses_what_is_no_image()?;
    flash.writes_only_to_a_disk_that_nobody_holds()?;
    println!("flash: files, modes and owners are right; the file system is sound; damaged images are refused");
    Ok(())
}

fn failed(error: std::io::Error) -> Failure {
    format!("prepare an image: {error}")
}

/// What systemd makes of the unit: it is understood, and among the calls that it lets through is the one that says
/// whether the clock is right, while setting the clock takes a capability that it has not.
fn the_unit_lets_the_agent_ask_for_the_clock() -> Outcome {
    let folder = tempfile::tempdir().map_err(failed)?;
    let text = std::fs::read_to_string(root().join("cross/debian/eden-agent.service")).map_err(failed)?;
    let unit = folder.path().join("eden-agent.service");
    // Here is no agent to be started; another program is.
    std::fs::write(&unit, text.replace("/usr/bin/eden-agent", "/bin/true")).map_err(failed)?;
    let said = output(Command::new("systemd-analyze").arg("verify").arg(&unit).stderr(std::process::Stdio::inherit()))?;
    if !said.is_empty() {
        return Err(format!("systemd-analyze verify: {said}"));
    }
    let about =
        output(Command::new("systemd-analyze").args(["security", "--offline=true", "--json=short"]).arg(&unit))?;
    let rules: Vec<serde_json::Value> = serde_json::from_str(&about).map_err(|e| format!("{about}: {e}"))?;
    for (rule, wanted) in [
        ("SystemCallFilter_clock", "adjtimex is allowed"),
        ("ProtectClock", "may write"),
        ("CapabilityBoundingSet_CAP_SYS_TIME", "cannot change the system clock"),
    ] {
        let found = rules.iter().find(|found| found["json_field"] == rule);
        let said = found.and_then(|found| found["description"].as_str()).unwrap_or_default();
        if !said.contains(wanted) {
            return Err(format!("the unit's {rule} should say {wanted:?}: {said:?}"));
        }
    }
    Ok(())
}

/// A folder with an image and what goes into it.
struct Flash<'a> {
    folder: &'a Path,
}

impl<'a> Flash<'a> {
    fn prepare(folder: &'a Path) -> Result<Self, Failure> {
        let flash = Flash { folder };
        let image = flash.path("base.img");
        let file = File::create(&image).map_err(failed)?;
        file.set_len((ROOT.0 + ROOT.1) * SECTOR).map_err(failed)?;
        file.write_all_at(&boot_record(), 0).map_err(failed)?;
        let boot = (BOOT.1 / 2).to_string();
        let vfat = ["-F", "32", "-s", "1", "-n", "BOOTFS", "--offset", &BOOT.0.to_string()];
        run_command(Command::new("mkfs.vfat").args(vfat).arg(&image).arg(&boot).stdout(std::process::Stdio::null()))?;
        let tree = flash.path("tree");
        std::fs::create_dir_all(tree.join("etc/systemd/system")).map_err(failed)?;
        std::fs::create_dir_all(tree.join("var/lib/NetworkManager")).map_err(failed)?;
        // As images have it whose country of Wi-Fi nobody set.
        let wifi = "[main]\nWirelessEnabled=false\n";
        std::fs::write(tree.join("var/lib/NetworkManager/NetworkManager.state"), wifi).map_err(failed)?;
        std::fs::write(tree.join("etc/hostname"), "raspberrypi\n").map_err(failed)?;
        std::fs::write(tree.join("etc/hosts"), "127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n").map_err(failed)?;
        let place = format!("offset={},root_owner=0:0", ROOT.0 * SECTOR);
        let mut ext4 = Command::new("mkfs.ext4");
        ext4.args(["-q", "-F", "-E", &place, "-d"]).arg(&tree).arg(&image).arg(format!("{}k", ROOT.1 / 2));
        run_command(&mut ext4)?;
        for (name, text) in
            [("config.txt", CONFIG), ("cmdline.txt", "root=x rootwait\n"), ("user-data", "#cloud-config\n")]
        {
            std::fs::write(flash.path(name), text).map_err(failed)?;
            let target = format!("::{name}");
            run_command(Command::new("mcopy").arg("-i").arg(boot_of(&image)).arg(flash.path(name)).arg(target))?;
        }
        run_command(Command::new("xz").args(["--keep", "-0"]).arg(&image))?;
        // Any package will do: what is in it counts at the first start.
        std::fs::write(flash.path("eden-agent.deb"), [7_u8; 70_000]).map_err(failed)?;
        std::fs::write(flash.path("key.pub"), "ssh-ed25519 AAAA somebody\n").map_err(failed)?;
        std::fs::write(flash.path("password"), "not a secret\n").map_err(failed)?;
        Ok(flash)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn run(&self, image: &str, to: &Path, more: &[&str]) -> Result<Output, Failure> {
        let mut command = in_root(root().join("cross/flash"));
        command.arg("--image").arg(self.path(image)).arg("--output").arg(to);
        command.arg("--package").arg(self.path("eden-agent.deb"));
        command.arg("--config").arg(root().join("cross/debian/agent.toml"));
        command.args(more).output().map_err(|error| format!("run cross/flash: {error}"))
    }

    fn writes_an_image(&self) -> Outcome {
        let image = self.path("card.img");
        let (key, password) = (self.path("key.pub"), self.path("password"));
        let (key, password) = (key.to_string_lossy(), password.to_string_lossy());
        let asked = [
            "--server",
            "mqtt://10.0.0.1:1883",
            "--hostname",
            "kitchen",
            "--ssh-key",
            &key,
            "--wifi",
            "My Net",
            "--wifi-password",
            &password,
            "--wifi-country",
            "DE",
        ];
        let done = self.run("base.img.xz", &image, &asked)?;
        if !done.status.success() {
            return Err(format!("cross/flash: {}{}", done.status, String::from_utf8_lossy(&done.stderr)));
        }
        run_command(
            Command::new("e2fsck").args(["-f", "-n"]).arg(root_of(&image)).stdout(std::process::Stdio::null()),
        )?;
        for (path, mode, wanted) in [
            ("/etc/eden/agent.toml", "0644", "url = \"mqtt://10.0.0.1:1883\""),
            ("/etc/hostname", "0644", "kitchen"),
            ("/etc/hosts", "0644", "127.0.1.1\tkitchen"),
            ("/etc/systemd/system/eden-setup.service", "0644", "ExecStart=/bin/sh /var/lib/eden-setup/setup"),
            ("/var/lib/eden-setup/setup", "0755", "dpkg --install"),
            ("/var/lib/eden-setup/authorized_keys", "0600", "somebody"),
            ("/etc/NetworkManager/system-connections/eden-wifi.nmconnection", "0600", "psk=not\\sa\\ssecret"),
            ("/var/lib/NetworkManager/NetworkManager.state", "0644", "WirelessEnabled=true"),
            ("/var/lib/eden-setup/wifi", "0644", ""),
        ] {
            let status = debugfs(&image, &format!("stat {path}"))?;
            let words: Vec<_> = status.split_whitespace().collect();
            let after =
                |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)).copied();
            let found = (after("Mode:"), after("User:"), after("Group:"));
            if found != (Some(mode), Some("0"), Some("0")) {
                return Err(format!("{path} has {found:?}, not {mode} of root"));
            }
            if !debugfs(&image, &format!("cat {path}"))?.contains(wanted) {
                return Err(format!("{path} does not say {wanted}"));
            }
        }
        let link = debugfs(&image, "stat /etc/systemd/system/multi-user.target.wants/eden-setup.service")?;
        if !link.contains("Fast link dest: \"/etc/systemd/system/eden-setup.service\"")
            && !link.contains("Type: symlink")
        {
            return Err(format!("the unit is not wanted: {link}"));
        }
        let back = self.path("package.back");
        debugfs(&image, &format!("dump /var/lib/eden-setup/eden-agent.deb {}", back.display()))?;
        if std::fs::read(&back).map_err(failed)? != [7_u8; 70_000] {
            return Err("the package is not what was given".into());
        }
        let config = boot_file(&image, "config.txt")?;
        let is_enabled = config.ends_with("[all]\ndtparam=i2c_arm=on\n") && !config.contains("#dtparam=i2c_arm=");
        if !is_enabled || !config.contains("dtparam=i2c_arm_baudrate=400000\n") {
            return Err(format!("config.txt does not enable I²C for every board, or lost another line: {config}"));
        }
        self.starts_without_waiting_for_itself(&image)?;
        let mode = std::fs::metadata(&image).map_err(failed)?.permissions().mode() & 0o777;
        if mode != 0o600 {
            return Err(format!("the image holds a password, and its mode is {mode:o}"));
        }
        let expected = [("cmdline.txt", "cfg80211.ieee80211_regdom=DE"), ("user-data", "hostname: kitchen")];
        for (name, wanted) in expected {
            if !boot_file(&image, name)?.contains(wanted) {
                return Err(format!("{name} does not say {wanted}"));
            }
        }
        Ok(())
    }

    /// The first start: systemd and the shell understand what is there, and no unit waits for one that waits for it.
    fn starts_without_waiting_for_itself(&self, image: &Path) -> Outcome {
        let unit = self.path("eden-setup.service");
        let script = self.path("setup");
        for (path, to) in [("/etc/systemd/system/eden-setup.service", &unit), ("/var/lib/eden-setup/setup", &script)] {
            debugfs(image, &format!("dump {path} {}", to.display()))?;
        }
        run_command(Command::new("systemd-analyze").arg("verify").arg(&unit))?;
        run_command(Command::new("sh").arg("-n").arg(&script))?;
        let (unit, script) =
            (std::fs::read_to_string(&unit).map_err(failed)?, std::fs::read_to_string(&script).map_err(failed)?);
        let starts = script.lines().map(str::trim).filter(|line| line.starts_with("systemctl")).collect::<Vec<_>>();
        if unit.contains("Before=")
            || starts != ["systemctl enable ssh.service", "systemctl start --no-block ssh.service"]
        {
            return Err(format!("the first start may wait for itself: {starts:?} {unit}"));
        }
        Ok(())
    }

    /// A disk that somebody holds is refused although nothing is mounted from it: btrfs and ZFS do not say what they are on.
    fn writes_only_to_a_disk_that_nobody_holds(&self) -> Outcome {
        let disk = self.path("disk.img");
        File::create(&disk).and_then(|file| file.set_len((ROOT.0 + ROOT.1) * SECTOR)).map_err(failed)?;
        let attached = Command::new("losetup").args(["--find", "--show"]).arg(&disk).output().map_err(failed)?;
        if !attached.status.success() {
            println!("flash: no loop device may be made here, so no disk was written");
            return Ok(());
        }
        let device = PathBuf::from(String::from_utf8_lossy(&attached.stdout).trim());
        let done = self.writes_to(&device);
        run_command(Command::new("losetup").arg("--detach").arg(&device))?;
        done
    }

    fn writes_to(&self, device: &Path) -> Outcome {
        let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
        let holder = File::options().read(true).custom_flags(exclusive).open(device).map_err(failed)?;
        for (holder, reasons) in
            [(Some(holder), &["is in use", "cannot be taken out"][..]), (None, &["cannot be taken out"][..])]
        {
            let done = self.run("base.img", device, &[])?;
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            let is_held = holder.is_some();
            if done.status.success()
                || !reasons.iter().all(|reason| said.contains(reason))
                || said.contains("is in use") != is_held
            {
                return Err(format!("held {is_held}: {} {said}", done.status));
            }
        }
        let told = ["--overwrite-this-disk", "--overwrite-this-disk"];
        let done = self.run("base.img", device, &told)?;
        if !done.status.success() {
            return Err(format!("cross/flash to a disk: {}", String::from_utf8_lossy(&done.stderr)));
        }
        let config = boot_file(device, "config.txt")?;
        if !config.ends_with("dtparam=i2c_arm=on\n") {
            return Err(format!("the disk is not what the image was: {config}"));
        }
        Ok(())
    }

    /// What is cut short, packed wrongly or of another kind is refused, and nothing is left behind.
    fn refuses_what_is_no_image(&self) -> Outcome {
        let packed = std::fs::read(self.path("base.img.xz")).map_err(failed)?;
        std::fs::write(self.path("cut.img.xz"), &packed[..packed.len() / 2]).map_err(failed)?;
        std::fs::write(self.path("noise.img"), vec![b'x'; 100_000]).map_err(failed)?;
        let mut record = boot_record().to_vec();
        record.resize(4_096, 0);
        std::fs::write(self.path("short.img"), &record).map_err(failed)?;
        for (image, reason) in
            [("cut.img.xz", "is damaged"), ("noise.img", "no boot record"), ("short.img", "is cut short")]
        {
            let to = self.path("none.img");
            let done = self.run(image, &to, &[])?;
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            if done.status.code() != Some(1) || !said.contains(reason) || to.exists() {
                return Err(format!("{image} should be refused because it {reason}: {} {said}", done.status));
            }
        }
        for password in ["with\ttab", "two\nlines of it", "short"] {
            std::fs::write(self.path("wrong"), password).map_err(failed)?;
            let (to, wrong) = (self.path("none.img"), self.path("wrong"));
            let done = self.run("base.img", &to, &["--wifi", "Net", "--wifi-password", &wrong.to_string_lossy()])?;
            if done.status.code() != Some(1) || to.exists() {
                return Err(format!("a password {password:?} was taken"));
            }
        }
        let done = self.run("base.img.xz", &self.path("card.img"), &[])?;
        if done.status.success() {
            return Err("an image that is there already was written over".into());
        }
        Ok(())
    }
}

/// A boot record with the two partitions.
fn boot_record() -> [u8; 512] {
    let mut record = [0_u8; 512];
    for (at, kind, (start, length)) in [(446, 0x0C, BOOT), (462, 0x83, ROOT)] {
        record[at + 4] = kind;
        record[at + 8..at + 12].copy_from_slice(&(start as u32).to_le_bytes());
        record[at + 12..at + 16].copy_from_slice(&(length as u32).to_le_bytes());
    }
    record[510..].copy_from_slice(&[0x55, 0xAA]);
    record
}

fn boot_of(image: &Path) -> String {
    format!("{}@@{}", image.display(), BOOT.0 * SECTOR)
}

fn root_of(image: &Path) -> String {
    format!("{}?offset={}", image.display(), ROOT.0 * SECTOR)
}

fn boot_file(image: &Path, name: &str) -> Result<String, Failure> {
    output(Command::new("mcopy").arg("-i").arg(boot_of(image)).args([&format!("::{name}"), "-"]))
}

/// What debugfs answers; its standard error begins with its version.
fn debugfs(image: &Path, request: &str) -> Result<String, Failure> {
    let done = Command::new("debugfs").args(["-R", request]).arg(root_of(image)).output().map_err(failed)?;
    let said = String::from_utf8_lossy(&done.stderr);
    if said.lines().any(|line| !line.starts_with("debugfs 1.")) {
        return Err(format!("{request}: {said}"));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
