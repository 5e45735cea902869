import CKernels

/// Records the kernel calls of a context, from ``init(of:capacity:)`` until ``stop()``.
///
/// Any number of threads may call kernels meanwhile; calls that fail are left out. A context has one profile at a time.
/// While a context has none, each of its calls pays two loads and two branches for it. C: `profile.h`.
///
/// ```swift
/// let profile = try KernelProfile(of: context, capacity: 1000)
/// KernelProfile.setTag(3)
/// try context.rmsNorm(input, weight: weight, epsilon: 1e-5, into: &output)
/// let recording = profile.stop()
/// ```
public struct KernelProfile: ~Copyable {
  private let context: KernelContext
  private let memory: AlignedBuffer<lspan_profile_event>
  private var isRunning = true

  /// Starts to record.
  ///
  /// - Parameters:
  ///   - capacity: calls to keep one by one; those beyond it are only in the totals.
  /// - Throws: ``LongspanError`` with ``LongspanError/Code/badValue`` if the context's calls are recorded already.
  public init(of context: KernelContext, capacity: Int) throws(LongspanError) {
    guard capacity >= 0 else {
      throw LongspanError(.badValue, "a profile of \(capacity) calls: the count is negative")
    }
    let memory = try AlignedBuffer<lspan_profile_event>(count: capacity)
    let status = lspan_profile_start(context.handle, memory.storage.baseAddress, capacity)
    if status == .bad_value {
      throw LongspanError(.badValue, "the context's calls are being recorded already")
    }
    try LongspanError.check(status, "recording \(capacity) calls")
    self.context = context
    self.memory = memory
  }

  deinit {
    // the library writes to the memory until it is told to stop
    if isRunning { _ = lspan_profile_stop(context.handle) }
  }

  /// Stops and returns what was recorded. Calls that still run are left out.
  public consuming func stop() -> KernelRecording {
    _ = lspan_profile_stop(context.handle)
    isRunning = false
    var stored = 0
    var lost = 0
    _ = lspan_profile_count(context.handle, &stored, &lost)
    let events = memory.storage.prefix(stored).map { KernelRecording.Call($0) }
    var totals: [KernelRecording.Totals] = []
    for index in 0..<lspan_profile_kernel_count() {
      let kernel = ProfiledKernel(rawValue: Int32(index))
      var sums = lspan_profile_totals()
      if let code = kernel.code { _ = lspan_profile_read(context.handle, code, &sums) }
      if sums.calls > 0 { totals.append(KernelRecording.Totals(kernel, sums)) }
    }
    return KernelRecording(calls: events, lostCalls: lost, totals: totals)
  }

  /// What the calls of this thread from now on are recorded with, on any context: a layer's number, for example. It is
  /// -1 until it is set. As cheap as a store, also where nothing is recorded.
  @inline(__always)
  public static func setTag(_ tag: Int) {
    lspan_profile_set_tag(Int32(truncatingIfNeeded: tag))
  }

  /// Nanoseconds on the clock of ``KernelRecording/Call/start``.
  public static var clock: UInt64 { lspan_profile_clock() }
}

/// A kernel that calls are recorded of. New ones may be added; compare with the constants. C: `lspan_profile_kernel`.
public struct ProfiledKernel: RawRepresentable, Hashable, Sendable {
  public let rawValue: Int32

  public init(rawValue: Int32) {
    self.rawValue = rawValue
  }

  /// Attention for any number of queries, `lspan_attention_prefill`.
  public static let attentionPrefill = ProfiledKernel(rawValue: 0)
  /// Attention for up to 8 query tokens a sequence, `lspan_attention_decode`.
  public static let attentionDecode = ProfiledKernel(rawValue: 1)
  /// Merging of partial attention, `lspan_attention_merge`.
  public static let attentionMerge = ProfiledKernel(rawValue: 2)
  /// Rotary embedding, `lspan_rope`.
  public static let rope = ProfiledKernel(rawValue: 3)
  /// Conversion of layout and type, `lspan_convert`.
  public static let convert = ProfiledKernel(rawValue: 4)
  /// RMSNorm, `lspan_rms_norm`.
  public static let rmsNorm = ProfiledKernel(rawValue: 5)
  /// LayerNorm, `lspan_layer_norm`.
  public static let layerNorm = ProfiledKernel(rawValue: 6)
  /// Activation of a gate times its input, `lspan_gated_activation`.
  public static let gatedActivation = ProfiledKernel(rawValue: 7)
  /// Losses and entropies of logits, `lspan_log_softmax_gather`.
  public static let logSoftmaxGather = ProfiledKernel(rawValue: 8)
  /// Rows of an embedding table, `lspan_embedding`.
  public static let embedding = ProfiledKernel(rawValue: 9)
  /// Product through OpenBLAS, `lspan_linear_run`.
  public static let linear = ProfiledKernel(rawValue: 10)
  /// Decoding of weights, `lspan_dequantize`.
  public static let dequantize = ProfiledKernel(rawValue: 11)
  /// Scores of LagKV, `lspan_lag_scores_run`.
  public static let lagScores = ProfiledKernel(rawValue: 12)
  /// Selection by scores, `lspan_select`.
  public static let select = ProfiledKernel(rawValue: 13)
  /// Compaction of a cache, `lspan_compact`.
  public static let compact = ProfiledKernel(rawValue: 14)
  /// Rotation of cached keys to other positions, `lspan_rope_shift`.
  public static let ropeShift = ProfiledKernel(rawValue: 15)
  /// Attention over lists of keys for any number of queries, `lspan_sparse_prefill`.
  public static let sparsePrefill = ProfiledKernel(rawValue: 16)
  /// Attention over lists of keys for up to 8 query tokens a sequence, `lspan_sparse_decode`.
  public static let sparseDecode = ProfiledKernel(rawValue: 17)
  /// Attention under the chunk mask of lag windows, `lspan_lag_prefill`.
  public static let lagPrefill = ProfiledKernel(rawValue: 18)
  /// Mamba's scan, `lspan_selective_scan_run`.
  public static let selectiveScan = ProfiledKernel(rawValue: 19)
  /// Mamba's scan of up to 8 tokens, `lspan_selective_update`.
  public static let selectiveUpdate = ProfiledKernel(rawValue: 20)
  /// Mamba-2's scan, `lspan_ssd_scan_run`.
  public static let ssdScan = ProfiledKernel(rawValue: 21)
  /// Mamba-2's scan of up to 8 tokens, `lspan_ssd_update`.
  public static let ssdUpdate = ProfiledKernel(rawValue: 22)
  /// Causal convolution, `lspan_causal_conv_run`.
  public static let causalConv = ProfiledKernel(rawValue: 23)
  /// RMSNorm with a SiLU gate, `lspan_gated_rms_norm_run`.
  public static let gatedRMSNorm = ProfiledKernel(rawValue: 24)
  /// Time steps of state-space layers, `lspan_dt_steps`.
  public static let dtSteps = ProfiledKernel(rawValue: 25)
  /// Product with packed weights, `lspan_product_run`.
  public static let product = ProfiledKernel(rawValue: 26)

  var code: lspan_profile_kernel? { lspan_profile_kernel(rawValue: .init(truncatingIfNeeded: rawValue)) }

  /// The C library's name for it.
  public var name: String { code.map { String(cString: lspan_profile_kernel_name($0)) } ?? "unknown" }

  /// Whether keys, values or weights of a model are among its operands, which a later step reads again.
  public var readsStoredOperands: Bool {
    switch self {
    case .attentionPrefill, .attentionDecode, .sparsePrefill, .sparseDecode, .lagPrefill: true
    case .embedding, .linear, .product, .dequantize: true
    default: false
    }
  }
}

/// What a ``KernelProfile`` saw.
public struct KernelRecording: Sendable {
  /// One call that succeeded.
  public struct Call: Sendable, Equatable {
    /// Nanoseconds on ``KernelProfile/clock``.
    public let start: UInt64
    /// Nanoseconds that the kernel took, without the checks of its arguments.
    public let nanoseconds: Int
    /// Bytes that must move at least: each input once, each output once.
    public let bytes: Int
    /// FLOPs of the mathematics.
    public let flops: Int
    /// Exponentials, or functions made of one.
    public let exponentials: Int
    /// Which kernel ran.
    public let kernel: ProfiledKernel
    /// The tag that its thread had set.
    public let tag: Int
    /// The thread that made it, numbered from 0 in this process.
    public let thread: Int
    /// The code of what it worked on, see `lspan_profile_event`.
    let variant: Int32
  }

  /// A part of the time that calls were recorded in.
  public struct Phase: Sendable, Equatable {
    /// What a report calls it.
    public let name: String
    /// Nanoseconds on ``KernelProfile/clock``.
    public let start: UInt64
    /// Nanoseconds on ``KernelProfile/clock``; calls that begin then are not in it.
    public let end: UInt64
    /// Tokens that were read in it.
    public let tokens: Int
    /// Times that the model was run through.
    public let steps: Int

    /// A phase from `start` up to `end`.
    public init(_ name: String, start: UInt64, end: UInt64, tokens: Int, steps: Int) {
      self.name = name
      self.start = start
      self.end = end
      self.tokens = tokens
      self.steps = steps
    }

    /// Whether a call began in it.
    public func contains(_ call: Call) -> Bool { call.start >= start && call.start < end }
  }

  /// Sums over all calls of a kernel, also those that were not kept.
  public struct Totals: Sendable, Equatable {
    /// The kernel whose calls they are.
    public let kernel: ProfiledKernel
    /// Calls that succeeded.
    public let calls: Int
    /// Of all calls, also where they overlapped.
    public let nanoseconds: Int
    /// Bytes that had to move at least.
    public let bytes: Int
    /// FLOPs of the mathematics.
    public let flops: Int
    /// Exponentials, or functions made of one.
    public let exponentials: Int
  }

  /// In the order in which they ended, about.
  public let calls: [Call]
  /// Calls beyond the capacity.
  public let lostCalls: Int
  /// Of the kernels that were called.
  public let totals: [Totals]
}

extension KernelRecording.Call {
  init(_ event: lspan_profile_event) {
    start = event.start_ns
    nanoseconds = Int(clamping: event.duration_ns)
    bytes = Int(event.bytes)
    flops = Int(event.flops)
    exponentials = Int(event.exponentials)
    kernel = ProfiledKernel(rawValue: Int32(truncatingIfNeeded: event.kernel.rawValue))
    tag = Int(event.tag)
    thread = Int(event.thread)
    variant = event.variant
  }

  /// The kernel and what it worked on, as `longspan bench` names them: "linear_q4_1", "gate_silu", "rms_norm".
  public var name: String {
    switch kernel {
    case .linear, .product, .dequantize, .embedding:
      return weightType.map { "\(kernel.name)_\($0)" } ?? kernel.name
    case .gatedActivation:
      switch lspan_activation(rawValue: .init(truncatingIfNeeded: variant)) {
      case .silu: return "gate_silu"
      case .gelu_tanh: return "gate_gelu_tanh"
      case .gelu_erf: return "gate_gelu_erf"
      default: return kernel.name
      }
    default:
      return elementType.map { $0 == .f32 ? kernel.name : "\(kernel.name)_\($0)" } ?? kernel.name
    }
  }

  /// The type of the weights in `linear`, `product` (of its first output), `dequantize` and `embedding`; `nil` for the
  /// other kernels.
  public var weightType: WeightType? {
    switch kernel {
    case .linear, .product, .dequantize, .embedding:
      UInt32(exactly: variant).flatMap(WeightType.init(rawValue:))
    default: nil
    }
  }

  /// The type of keys and values in attention, of the output in `rope` and `convert`, of the keys in `lag_scores`,
  /// `compact` and `rope_shift`, of the input in the norms and losses, f32 in `select`; `nil` for the other kernels.
  public var elementType: ElementType? {
    switch kernel {
    case .linear, .product, .dequantize, .embedding, .gatedActivation: nil
    default: ElementType.allCases.first { $0.code.rawValue == UInt32(exactly: variant) }
    }
  }
}

extension KernelRecording.Totals {
  init(_ kernel: ProfiledKernel, _ sums: lspan_profile_totals) {
    self.kernel = kernel
    calls = Int(sums.calls)
    nanoseconds = Int(sums.nanoseconds)
    bytes = Int(sums.bytes)
    flops = Int(sums.flops)
    exponentials = Int(sums.exponentials)
  }
}
