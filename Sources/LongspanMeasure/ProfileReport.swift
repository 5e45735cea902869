import LongspanKernels

/// Where the time of a recorded run went: by kernel and by layer, beside what the machine allows.
public struct ProfileReport: Sendable, Codable, Equatable {
  /// The calls of one kernel in one phase.
  public struct KernelRow: Sendable, Codable, Equatable {
    /// As ``/LongspanKernels/KernelRecording/Call/name``.
    public let name: String
    /// Calls that began in the phase.
    public let calls: Int
    /// The sum over the calls.
    public let seconds: Double
    /// Of the phase's time.
    public let share: Double
    /// Bytes that had to move at least.
    public let bytes: Int
    /// FLOPs of the mathematics.
    public let flops: Int
    /// Exponentials, or functions made of one.
    public let exponentials: Int
    /// ``bytes`` over ``seconds``.
    public let bytesPerSecond: Double
    /// ``flops`` over ``seconds``.
    public let flopsPerSecond: Double
    /// What bounds the calls, weighted by their time: of each the ceiling of which it reaches the largest part.
    public let ceiling: MachineCeilings.Ceiling
    /// How much of it they reach, weighted likewise.
    public let fractionOfCeiling: Double
  }

  /// The calls with one tag in one phase.
  public struct LayerRow: Sendable, Codable, Equatable {
    /// A number, "embedding" or "output".
    public let layer: String
    /// Calls that began in the phase.
    public let calls: Int
    /// The sum over the calls.
    public let seconds: Double
    /// Of the phase's time.
    public let share: Double
    /// Bytes that had to move at least.
    public let bytes: Int
    /// FLOPs of the mathematics.
    public let flops: Int
  }

  /// A phase of the run.
  public struct Phase: Sendable, Codable, Equatable {
    /// What the recording called it.
    public let name: String
    /// Tokens that were read in it.
    public let tokens: Int
    /// From its start to its end.
    public let seconds: Double
    /// ``tokens`` over ``seconds``.
    public let tokensPerSecond: Double
    /// The sum over the calls.
    public let kernelSeconds: Double
    /// What is left of the phase: everything outside kernel calls.
    public let hostSeconds: Double
    /// ``hostSeconds`` over ``seconds``.
    public let hostShare: Double
    /// The longest first.
    public let kernels: [KernelRow]
    /// In the model's order.
    public let layers: [LayerRow]
  }

  /// In the order of the recording.
  public let phases: [Phase]
  /// Calls that were not kept, and are missing from every row.
  public let lostCalls: Int

  /// Sums up a recording.
  ///
  /// Keys, values and weights count as cold where those of one step do not fit the last-level cache together; other
  /// operands are where the call before left them: in the smallest cache that holds all of a call's.
  ///
  /// - Parameters:
  ///   - phases: calls outside all of them are left out.
  ///   - layers: tags 0 to `layers` - 1 are layers; below is the embedding, above the output.
  ///   - team: the ceilings of as many threads as the context had.
  public init(
    _ recording: KernelRecording, phases: [KernelRecording.Phase], layers: Int, team: MachineCeilings.Team,
    topology: MachineTopology
  ) {
    lostCalls = recording.lostCalls
    self.phases = phases.map { phase in
      let calls = recording.calls.filter(phase.contains)
      return Phase(phase, calls, layers: layers, Bounds(phase, calls, team, topology))
    }
  }

  /// The name of a tag in tables and traces.
  public static func name(ofLayer tag: Int, layers: Int) -> String {
    tag < 0 ? "embedding" : tag < layers ? "\(tag)" : "output"
  }

  /// The ceilings of a phase's calls.
  struct Bounds {
    private let team: MachineCeilings.Team
    private let topology: MachineTopology
    private let storedState: CacheState

    init(
      _ phase: KernelRecording.Phase, _ calls: [KernelRecording.Call], _ team: MachineCeilings.Team,
      _ topology: MachineTopology
    ) {
      let stored = calls.reduce(0.0) { $0 + ($1.kernel.readsStoredOperands ? Double($1.bytes) : 0) }
      let perStep = stored / Double(max(phase.steps, 1))
      let fits = perStep < 0x1p53 && BenchmarkRunner.fits(Int(perStep), in: topology.lastLevelBytes)
      storedState = fits ? .warm : .cold
      self.team = team
      self.topology = topology
    }

    func callAsFunction(_ call: KernelRecording.Call) -> MachineCeilings.Bound {
      let state = call.kernel.readsStoredOperands ? storedState : .warm
      return team.bound(
        bytes: call.bytes, flops: call.flops, exponentials: call.exponentials,
        nanoseconds: Double(max(call.nanoseconds, 1)),
        level: BenchmarkRunner.level(of: call.bytes, cache: state, threads: team.threads, topology: topology),
        arithmetic: call.arithmetic,
        addsArithmetic: [.selectiveScan, .selectiveUpdate].contains(call.kernel))
    }
  }
}

extension KernelRecording.Call {
  /// Products with packed weights count as if in native mode: what is not recorded may be f32.
  fileprivate var arithmetic: Arithmetic {
    if kernel == .product, let weightType { return Arithmetic(packed: weightType) }
    return kernel.isAttention && elementType == .bf16 ? .bf16 : .f32
  }
}

extension ProfiledKernel {
  /// Whether bf16 inputs let it use the CPU's bf16 dot products.
  fileprivate var isAttention: Bool { self == .attentionDecode || self == .attentionPrefill }
}

extension ProfileReport.Phase {
  fileprivate init(
    _ phase: KernelRecording.Phase, _ calls: [KernelRecording.Call], layers: Int,
    _ bounds: ProfileReport.Bounds
  ) {
    let whole = Double(phase.end - phase.start) * 1e-9
    let inKernels = Sums(calls).seconds
    name = phase.name
    tokens = phase.tokens
    seconds = whole
    tokensPerSecond = Double(phase.tokens) / max(whole, 1e-9)
    kernelSeconds = inKernels
    // threads that call kernels at the same time take more than the phase has
    hostSeconds = max(0, whole - inKernels)
    hostShare = hostSeconds / max(whole, 1e-9)
    kernels = Dictionary(grouping: calls, by: \.name).map { name, calls in
      ProfileReport.KernelRow(name, calls, phaseSeconds: whole, bounds)
    }.sorted { ($1.seconds, $0.name) < ($0.seconds, $1.name) }
    self.layers = Dictionary(grouping: calls) { min(max($0.tag, -1), layers) }.sorted { $0.key < $1.key }.map
    {
      let sums = Sums($0.value)
      return ProfileReport.LayerRow(
        layer: ProfileReport.name(ofLayer: $0.key, layers: layers), calls: $0.value.count,
        seconds: sums.seconds, share: sums.seconds / max(whole, 1e-9), bytes: sums.bytes, flops: sums.flops)
    }
  }
}

extension ProfileReport.KernelRow {
  fileprivate init(
    _ name: String, _ calls: [KernelRecording.Call], phaseSeconds: Double, _ bounds: ProfileReport.Bounds
  ) {
    let sums = Sums(calls)
    self.name = name
    self.calls = calls.count
    seconds = sums.seconds
    share = sums.seconds / max(phaseSeconds, 1e-9)
    bytes = sums.bytes
    flops = sums.flops
    exponentials = sums.exponentials
    bytesPerSecond = Double(sums.bytes) / max(sums.seconds, 1e-9)
    flopsPerSecond = Double(sums.flops) / max(sums.seconds, 1e-9)
    // seconds that the calls would take at their ceilings
    var least: [MachineCeilings.Ceiling: Double] = [:]
    for call in calls {
      let bound = bounds(call)
      least[bound.ceiling, default: 0] += bound.fraction * Double(max(call.nanoseconds, 1)) * 1e-9
    }
    ceiling = MachineCeilings.Ceiling.allCases.max { least[$0, default: 0] < least[$1, default: 0] } ?? .dram
    fractionOfCeiling = least.values.reduce(0, +) / max(sums.seconds, 1e-9)
  }
}

/// Sums over calls.
private struct Sums {
  let seconds: Double
  let bytes: Int
  let flops: Int
  let exponentials: Int

  init(_ calls: [KernelRecording.Call]) {
    seconds = calls.reduce(0.0) { $0 + Double($1.nanoseconds) * 1e-9 }
    bytes = calls.reduce(0) { $0 + $1.bytes }
    flops = calls.reduce(0) { $0 + $1.flops }
    exponentials = calls.reduce(0) { $0 + $1.exponentials }
  }
}
