//! The loader: posts a file's lines in batches over a few connections, and times each answer.

use std::io::{self, BufRead, BufReader, Error, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Options;

struct Target {
    addr: String,
    path: String,
}

fn parse_url(url: &str) -> io::Result<Target> {
    let rest = url.strip_prefix("http://").ok_or_else(|| Error::other("--url must start with http://"))?;
    let (addr, path) = rest.split_once('/').unwrap_or((rest, ""));
    let addr = if addr.contains(':') { addr.to_string() } else { format!("{addr}:80") };
    Ok(Target { addr, path: format!("/{path}") })
}

#[expect(clippy::disallowed_methods, reason = "this program measures real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the pace of --rate-rows is a feature")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Cuts the file into runs of `batch` whole lines: (start, end, rows) by byte offset.
fn cut(data: &[u8], batch: usize, limit: usize) -> Vec<(usize, usize, usize)> {
    let (mut out, mut from, mut lines, mut total) = (Vec::new(), 0, 0, 0);
    for (i, &b) in data.iter().enumerate() {
        if b == b'\n' {
            lines += 1;
            total += 1;
            if lines == batch || total == limit {
                out.push((from, i + 1, lines));
                from = i + 1;
                lines = 0;
                if total == limit {
                    return out;
                }
            }
        }
    }
    if from < data.len() {
        out.push((from, data.len(), lines.max(1)));
    }
    out
}

fn read_reply(r: &mut BufReader<TcpStream>) -> io::Result<(u16, String)> {
    let mut line = String::new();
    if r.read_line(&mut line)? == 0 {
        return Err(Error::other("connection closed before the reply"));
    }
    let code = line.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
    let (mut length, mut chunked) = (0usize, false);
    loop {
        line.clear();
        r.read_line(&mut line)?;
        let l = line.trim_end().to_ascii_lowercase();
        if l.is_empty() {
            break;
        }
        if let Some(v) = l.strip_prefix("content-length:") {
            length = v.trim().parse().unwrap_or(0);
        }
        chunked |= l.starts_with("transfer-encoding:") && l.contains("chunked");
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            line.clear();
            r.read_line(&mut line)?;
            let n = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let at = body.len();
            body.resize(at + n, 0);
            r.read_exact(&mut body[at..])?;
            line.clear();
            r.read_line(&mut line)?;
            if n == 0 {
                break;
            }
        }
    } else if length > 0 {
        body.resize(length, 0);
        r.read_exact(&mut body)?;
    }
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}

pub(crate) fn run(o: &Options) -> io::Result<()> {
    let target = parse_url(o.text("url", ""))?;
    let data = std::fs::read(o.text("file", ""))?;
    let limit = o.number("limit-rows", u64::MAX)? as usize;
    let batches = cut(&data, o.number("batch", 5000)? as usize, limit);
    let conns = o.number("conns", 4)? as usize;
    let rate = o.number("rate-rows", 0)? as f64;
    let prefix = o.text("prefix", "").replace("\\n", "\n");
    let mut head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: {}\r\n",
        target.path,
        target.addr,
        o.text("content-type", "text/plain")
    );
    if !o.text("auth", "").is_empty() {
        head += &format!("Authorization: {}\r\n", o.text("auth", ""));
    }
    let next = AtomicUsize::new(0);
    let rows_sent = AtomicUsize::new(0);
    let t0 = now();
    let worker = || -> io::Result<(Vec<f64>, usize, String)> {
        let mut sock = TcpStream::connect(&target.addr)?;
        sock.set_nodelay(true)?;
        let mut reply = BufReader::new(sock.try_clone()?);
        let (mut lat, mut bad, mut first_error) = (Vec::new(), 0, String::new());
        while let Some(&(a, b, rows)) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            if rate > 0.0 {
                let due = rows_sent.load(Ordering::Relaxed) as f64 / rate;
                let ahead = due - t0.elapsed().as_secs_f64();
                if ahead > 0.0 {
                    pause(Duration::from_secs_f64(ahead));
                }
            }
            let t = now();
            let h = format!("{head}Content-Length: {}\r\n\r\n{prefix}", b - a + prefix.len());
            sock.write_all(h.as_bytes())?;
            sock.write_all(&data[a..b])?;
            let (code, body) = read_reply(&mut reply)?;
            lat.push(t.elapsed().as_secs_f64() * 1e3);
            if (200..300).contains(&code) {
                rows_sent.fetch_add(rows, Ordering::Relaxed);
            } else {
                bad += 1;
                if first_error.is_empty() {
                    first_error = format!("{code} {}", body.chars().take(200).collect::<String>());
                }
            }
        }
        Ok((lat, bad, first_error))
    };
    let results: Vec<_> = std::thread::scope(|s| {
        let hs: Vec<_> = (0..conns).map(|_| s.spawn(worker)).collect();
        hs.into_iter().map(|h| h.join().expect("worker")).collect()
    });
    let secs = t0.elapsed().as_secs_f64();
    let (mut lat, mut bad, mut error) = (Vec::new(), 0, String::new());
    for r in results {
        match r {
            Ok((l, b, e)) => {
                lat.extend(l);
                bad += b;
                if error.is_empty() {
                    error = e;
                }
            }
            Err(e) => error = e.to_string(),
        }
    }
    lat.sort_by(f64::total_cmp);
    let at = |p: f64| lat.get(((lat.len() as f64 - 1.0) * p) as usize).copied().unwrap_or(0.0);
    let rows = rows_sent.load(Ordering::Relaxed);
    println!(
        "{{\"rows\":{rows},\"seconds\":{secs:.3},\"rows_per_s\":{:.0},\"batches\":{},\"failed\":{bad},\
         \"p50_ms\":{:.2},\"p99_ms\":{:.2},\"max_ms\":{:.2},\"error\":{:?}}}",
        rows as f64 / secs,
        lat.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        error
    );
    Ok(())
}
