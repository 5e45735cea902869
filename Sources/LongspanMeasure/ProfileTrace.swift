import LongspanKernels

/// A recorded run in the Trace Event Format, which Perfetto and chrome://tracing open: phases, in them layers, in them
/// kernel calls.
public struct ProfileTrace: Sendable, Encodable {
  /// Numbers of one slice, shown where it is chosen.
  struct Arguments: Sendable, Encodable {
    var name: String?
    var layer: String?
    var phase: String?
    var tokens: Int?
    var bytes: Int?
    var flops: Int?
    var exponentials: Int?
  }

  /// A complete event ("X") or the name of a process or thread ("M").
  struct Event: Sendable, Encodable {
    let name: String
    let ph: String
    var cat: String?
    /// Microseconds from the first phase's start.
    var ts: Double?
    var dur: Double?
    let pid = 1
    let tid: Int
    let args: Arguments

    private enum CodingKeys: String, CodingKey { case name, ph, cat, ts, dur, pid, tid, args }
  }

  let displayTimeUnit = "ms"
  let traceEvents: [Event]

  private enum CodingKeys: String, CodingKey { case displayTimeUnit, traceEvents }

  /// - Parameters:
  ///   - title: the name of the process in the viewer.
  ///   - layers: tags 0 to `layers` - 1 are layers; below is the embedding, above the output.
  public init(
    _ recording: KernelRecording, phases: [KernelRecording.Phase], layers: Int, title: String
  ) {
    let origin = phases.map(\.start).min() ?? 0
    func microseconds(_ time: UInt64) -> Double { Double(time - min(origin, time)) / 1000 }
    let threads = Set(recording.calls.map(\.thread)).sorted()
    let main = recording.calls.first?.thread ?? 0
    var events = [
      Event(name: "process_name", ph: "M", tid: main, args: Arguments(name: title))
    ]
    for thread in threads {
      events.append(
        Event(
          name: "thread_name", ph: "M", tid: thread, args: Arguments(name: "kernel calls, thread \(thread)")))
    }
    for phase in phases {
      events.append(
        Event(
          name: phase.name, ph: "X", cat: "phase", ts: microseconds(phase.start),
          dur: Double(phase.end - phase.start) / 1000, tid: main, args: Arguments(tokens: phase.tokens)))
      for thread in threads {
        let calls = recording.calls.filter { $0.thread == thread && phase.contains($0) }
          .sorted { $0.start < $1.start }
        for run in Self.runs(of: calls) {
          guard let first = calls[run].first, let last = calls[run].last else { continue }
          let layer = ProfileReport.name(ofLayer: first.tag, layers: layers)
          let end = last.start + UInt64(last.nanoseconds)
          events.append(
            Event(
              name: first.tag >= 0 && first.tag < layers ? "layer \(layer)" : layer, ph: "X", cat: "layer",
              ts: microseconds(first.start), dur: Double(end + Self.slack - first.start) / 1000, tid: thread,
              args: Arguments(phase: phase.name)))
          for call in calls[run] {
            events.append(
              Event(
                name: call.name, ph: "X", cat: "kernel", ts: microseconds(call.start),
                dur: Double(call.nanoseconds) / 1000, tid: thread,
                args: Arguments(
                  layer: layer, phase: phase.name, bytes: call.bytes, flops: call.flops,
                  exponentials: call.exponentials)))
          }
        }
      }
    }
    traceEvents = events
  }

  /// Nanoseconds that a layer is shown to end after its last call, so that a viewer which rounds times still sees that
  /// call inside. The next call begins later, as recording one takes longer.
  private static let slack: UInt64 = 10

  /// Ranges of calls that follow one another with the same tag.
  private static func runs(of calls: [KernelRecording.Call]) -> [Range<Int>] {
    var runs: [Range<Int>] = []
    var first = 0
    for index in calls.indices where index + 1 == calls.count || calls[index + 1].tag != calls[first].tag {
      runs.append(first..<index + 1)
      first = index + 1
    }
    return runs
  }
}
