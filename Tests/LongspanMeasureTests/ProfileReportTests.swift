import Foundation
import Testing

@testable import LongspanKernels
@testable import LongspanMeasure

/// What calls are recorded with is what `longspan bench` counts for its cases.
struct ProfiledCostTests {
  @Test func everyBenchmarkCostIsTheRecordedOne() throws {
    let context = try KernelContext(threads: 2)
    var seen: Set<BenchmarkCase> = []
    for standard in BenchmarkCase.standard {
      for window in [0, 40, 200] {
        let hasWindow = standard.shape["window"] != nil
        let shape = SmallShapes.shape(for: standard).merging(hasWindow ? ["window": window] : [:]) { $1 }
        let one = BenchmarkCase(standard.kernel, shape, standard.elementType)
        guard seen.insert(one).inserted else { continue }
        try one.validate()
        var operands = try BenchmarkOperands(one, copies: 1, context)
        let profile = try KernelProfile(of: context, capacity: 4)
        try operands.call(0)
        let recording = profile.stop()
        let cost = try one.cost()
        if one.kernel == .lagCompression {
          // scores, selection and compaction, whose cost is that of the three without what one hands to the next
          #expect(recording.calls.map(\.kernel) == [.lagScores, .select, .compact])
          #expect(recording.calls.reduce(0) { $0 + $1.bytes } > cost.bytes, "\(one)")
          #expect(
            recording.calls[0].flops == cost.flops && recording.calls[0].exponentials == cost.exponentials)
          continue
        }
        #expect(recording.calls.count == 1 && recording.lostCalls == 0, "\(one)")
        let call = try #require(recording.calls.first)
        // a causal prefill sees its diagonal, which bench's N * N counts half
        let window = window > 0 ? min(window, 96) : 96
        let halfDiagonal = one.kernel == .attentionPrefill ? 4 * window / 2 : 0
        #expect(call.bytes == cost.bytes, "\(one)")
        #expect(call.flops == cost.flops + halfDiagonal * 4 * 64, "\(one)")
        #expect(call.exponentials == cost.exponentials + halfDiagonal, "\(one)")
        #expect(call.name.hasPrefix(one.name), "\(call.name) and \(one.name)")
      }
    }
    #expect(seen.count > 30)
  }
}

struct ProfileReportTests {
  private static let second: UInt64 = 1_000_000_000

  private static func call(
    _ kernel: ProfiledKernel, at start: UInt64, nanoseconds: Int, tag: Int, bytes: Int, flops: Int = 0,
    exponentials: Int = 0, variant: Int32 = 0, thread: Int = 0
  ) -> KernelRecording.Call {
    KernelRecording.Call(
      start: start, nanoseconds: nanoseconds, bytes: bytes, flops: flops, exponentials: exponentials,
      kernel: kernel, tag: tag, thread: thread, variant: variant)
  }

  /// A model of two layers: one step of prefill from 1 s to 2 s, two steps of decode from 2 s to 3 s.
  private static let calls = [
    call(.embedding, at: second, nanoseconds: 1000, tag: -1, bytes: 1000),
    call(.rmsNorm, at: second + 2000, nanoseconds: 1000, tag: 0, bytes: 100),
    call(.linear, at: second + 4000, nanoseconds: 4000, tag: 0, bytes: 4000, flops: 100_000, variant: 3),
    call(.linear, at: second + 9000, nanoseconds: 6000, tag: 1, bytes: 4000, flops: 100_000, variant: 3),
    call(.linear, at: second + 20000, nanoseconds: 1000, tag: 2, bytes: 10),
    call(.linear, at: 2 * second, nanoseconds: 5000, tag: 0, bytes: 4000, flops: 200, variant: 3),
    call(.attentionDecode, at: 2 * second + 6000, nanoseconds: 500, tag: 0, bytes: 10, exponentials: 900),
    // outside
    call(.linear, at: 3 * second, nanoseconds: 5000, tag: 0, bytes: 4000, flops: 200, variant: 3),
  ]

  private static let phases = [
    KernelRecording.Phase("prefill", start: second, end: 2 * second, tokens: 7, steps: 1),
    KernelRecording.Phase("decode", start: 2 * second, end: 3 * second, tokens: 2, steps: 2),
  ]

  private static let recording = KernelRecording(calls: calls, lostCalls: 4, totals: [])

  private static func report(dram: Double) throws -> ProfileReport {
    func rate(_ value: Double) -> MachineCeilings.Rate { .init(best: value, median: value) }
    let team = MachineCeilings.Team(
      threads: 1, dram: rate(dram), l3: rate(2e9), l2: rate(4e9), fmaF32: rate(100e9), fmaBF16: nil,
      exp: rate(3.6e9))
    return ProfileReport(
      recording, phases: phases, layers: 2, team: team, topology: try MachineTopology())
  }

  @Test func sumsUpByKernel() throws {
    let report = try Self.report(dram: 1e9)
    #expect(report.lostCalls == 4 && report.phases.map(\.name) == ["prefill", "decode"])
    let prefill = report.phases[0]
    #expect(prefill.tokens == 7 && abs(prefill.tokensPerSecond - 7) < 1e-9)
    #expect(prefill.kernels.map(\.name) == ["linear_q4_1", "embedding_f32", "linear_f32", "rms_norm"])
    let linear = prefill.kernels[0]
    #expect(linear.calls == 2 && linear.bytes == 8000 && linear.flops == 200_000)
    #expect(abs(linear.seconds - 10e-6) < 1e-12 && abs(linear.share - 10e-6) < 1e-12)
    #expect(abs(linear.bytesPerSecond / 0.8e9 - 1) < 1e-9 && abs(linear.flopsPerSecond / 20e9 - 1) < 1e-9)
    #expect(abs(prefill.kernelSeconds - 13e-6) < 1e-12)
    #expect(abs(prefill.kernelSeconds + prefill.hostSeconds - prefill.seconds) < 1e-12)
  }

  @Test func fractionsAreThoseOfTheCeilingMostUsed() throws {
    let phases = try Self.report(dram: 1e9).phases
    // few bytes fit every cache, so all is warm: 4 us at 1 GB/s and 25 GFLOP/s of 4 and 100, then 6 us
    let linear = phases[0].kernels[0]
    #expect(linear.ceiling == .l2)
    #expect(abs(linear.fractionOfCeiling - (0.25 * 4 + 0.25 * 4) / 10) < 1e-9)
    let attention = try #require(phases[1].kernels.first { $0.name == "attention_decode" })
    #expect(attention.ceiling == .exp && abs(attention.fractionOfCeiling - 0.5) < 1e-9)
  }

  @Test func sumsUpByLayer() throws {
    let phases = try Self.report(dram: 1e9).phases
    #expect(phases[0].layers.map(\.layer) == ["embedding", "0", "1", "output"])
    #expect(phases[0].layers.map(\.calls) == [1, 2, 1, 1])
    #expect(phases[0].layers.map(\.bytes) == [1000, 4100, 4000, 10])
    #expect(phases[1].layers.map(\.layer) == ["0"])
    #expect(abs(phases[1].layers[0].seconds - 5.5e-6) < 1e-12)
  }

  @Test func storedOperandsThatNoCacheHoldsAreCold() throws {
    let topology = try MachineTopology()
    let rate = MachineCeilings.Rate(best: 1e9, median: 1e9)
    let team = MachineCeilings.Team(
      threads: 1, dram: rate, l3: rate, l2: rate, fmaF32: rate, fmaBF16: nil, exp: rate)
    let half = max(topology.l3Bytes, topology.l2Bytes, 1 << 20) * 3 / 4
    let calls = [
      Self.call(.linear, at: 5, nanoseconds: 10, tag: 0, bytes: half),
      Self.call(.linear, at: 20, nanoseconds: 10, tag: 1, bytes: half),
      Self.call(.rmsNorm, at: 40, nanoseconds: 10, tag: 1, bytes: 1000),
    ]
    func ceilings(steps: Int) -> [String: MachineCeilings.Ceiling] {
      let phase = KernelRecording.Phase("x", start: 0, end: 100, tokens: 1, steps: steps)
      let report = ProfileReport(
        KernelRecording(calls: calls, lostCalls: 0, totals: []), phases: [phase], layers: 2, team: team,
        topology: topology)
      return Dictionary(uniqueKeysWithValues: report.phases[0].kernels.map { ($0.name, $0.ceiling) })
    }
    #expect(ceilings(steps: 1)["linear_f32"] == .dram)
    #expect(ceilings(steps: 2)["linear_f32"] != .dram)
    #expect(ceilings(steps: 1)["rms_norm"] == .l2)
  }

  @Test func theTraceNestsCallsInLayersInPhases() throws {
    let trace = ProfileTrace(Self.recording, phases: Self.phases, layers: 2, title: "a \"test\"")
    let object = try JSONSerialization.jsonObject(with: JSONEncoder().encode(trace)) as? [String: Any]
    #expect(object?["displayTimeUnit"] as? String == "ms")
    let events = try #require(object?["traceEvents"] as? [[String: Any]])
    func slices(_ category: String) -> [[String: Any]] {
      events.filter { $0["ph"] as? String == "X" && $0["cat"] as? String == category }
    }
    #expect(slices("phase").compactMap { $0["name"] as? String } == ["prefill", "decode"])
    #expect(
      slices("layer").compactMap { $0["name"] as? String }
        == ["embedding", "layer 0", "layer 1", "output", "layer 0"])
    #expect(slices("kernel").count == 7)
    let linear = slices("kernel")[2]
    #expect(linear["ts"] as? Double == 4 && linear["dur"] as? Double == 4)
    let arguments = try #require(linear["args"] as? [String: Any])
    #expect(arguments["layer"] as? String == "0" && arguments["phase"] as? String == "prefill")
    #expect(arguments["bytes"] as? Int == 4000 && arguments["flops"] as? Int == 100_000)
    // layer 0 of the prefill is two calls long
    #expect(slices("layer")[1]["ts"] as? Double == 2 && slices("layer")[1]["dur"] as? Double == 6.01)
    let names = events.filter { $0["ph"] as? String == "M" }.compactMap {
      ($0["args"] as? [String: Any])?["name"] as? String
    }
    #expect(names == ["a \"test\"", "kernel calls, thread 0"])
  }
}
