import CKernels
import LongspanKernels

/// What a call of attention decode costs where there is nearly nothing to compute: one key (S = 1), 9 query heads, 3
/// key/value heads, head dimension 64, f32, a context of one thread. What is left is the call itself.
public struct CallCost: Sendable {
  /// How the call is made.
  public enum Way: String, Sendable, CaseIterable {
    /// `lspan_attention_decode` with a struct that was filled once.
    case c = "C, struct filled once"
    /// The same after `lspan_attention_decode_workspace_size`, as a caller does whose shapes change.
    case cWithSize = "C, workspace size asked for"
    /// `KernelContext.attend`, of views made once.
    case swift = "Swift"
  }

  /// How the calls were made.
  public let way: Way
  /// Of one call: the fastest and the median batch's mean.
  public let timing: Timing

  /// Times every way, in batches of 1000 calls that take turns, for so many seconds in all.
  ///
  /// - Parameters:
  ///   - isa: the variant to run; `nil` for the best.
  ///   - seconds: the first batches, which warm up, come on top.
  public static func measure(isa: String? = nil, seconds: Double) throws(LongspanError) -> [CallCost] {
    let context = try KernelContext(threads: 1, isa: isa)
    let library = try LibraryContext(isa: context.isa)
    let operands = try CallOperands(context)
    var results = try CallOperands.Results()
    var workspace = Workspace()
    func batch(_ way: Way) throws(LongspanError) -> Double {
      switch way {
      case .c: try operands.callLibrary(library, asking: false, &results)
      case .cWithSize: try operands.callLibrary(library, asking: true, &results)
      case .swift: try operands.callSwift(context, &workspace, &results)
      }
    }
    for way in Way.allCases { _ = try batch(way) }
    var samples = Way.allCases.map { _ in [Double]() }
    let watch = Stopwatch()
    repeat {
      for (index, way) in Way.allCases.enumerated() { samples[index].append(try batch(way)) }
    } while watch.nanoseconds < seconds * 1e9
    return zip(Way.allCases, samples).compactMap { way, samples in
      Timing(samples).map { CallCost(way: way, timing: $0) }
    }
  }
}

/// A context of one thread as C programs have it.
private final class LibraryContext {
  let handle: OpaquePointer

  init(isa: String) throws(LongspanError) {
    var made: OpaquePointer?
    let status = isa.withCString { name in
      var options = lspan_context_options(threads: 1, isa: name, executor: nil, fixed_split: 0)
      return lspan_context_create(&options, &made)
    }
    try LibraryContext.check(status)
    guard let made else { throw LongspanError(.nullPointer, "the C library made no context") }
    handle = made
  }

  deinit {
    lspan_context_destroy(handle)
  }

  static func check(_ status: lspan_status) throws(LongspanError) {
    guard status != .ok else { return }
    throw LongspanError(
      .init(rawValue: Int32(status.rawValue)), String(cString: lspan_status_description(status)))
  }
}

/// The call's memory. Batches give nanoseconds a call.
private struct CallOperands: ~Copyable {
  private static let queryHeads = 9
  private static let keyHeads = 3
  private static let columns = 64
  private static let calls = 1000

  private let rows: [Int64] = [0, 1]
  private let queries: AlignedBuffer<Float>
  private let keys: AlignedBuffer<Float>
  private let values: AlignedBuffer<Float>

  /// What calls write.
  struct Results: ~Copyable {
    var output: AlignedBuffer<Float>
    var scratch: AlignedBuffer<UInt8>

    init() throws(LongspanError) {
      let output = try AlignedBuffer<Float>(count: queryHeads * columns)
      scratch = try AlignedBuffer(count: 1 << 16)
      self.output = output
    }
  }

  init(_ context: KernelContext) throws(LongspanError) {
    func filled(_ heads: Int) throws(LongspanError) -> AlignedBuffer<Float> {
      var buffer = try AlignedBuffer<Float>(count: heads * Self.columns)
      try Filling.fill(&buffer, .f32, context)
      return buffer
    }
    let queries = try filled(Self.queryHeads)
    let keys = try filled(Self.keyHeads)
    values = try filled(Self.keyHeads)
    self.queries = queries
    self.keys = keys
  }

  func callSwift(
    _ context: KernelContext, _ workspace: inout Workspace, _ results: inout Results
  ) throws(LongspanError) -> Double {
    let queries = try TensorView(queries.span, tokens: 1, heads: Self.queryHeads, columns: Self.columns)
    let keys = try TensorView(keys.span, tokens: 1, heads: Self.keyHeads, columns: Self.columns)
    let values = try TensorView(values.span, tokens: 1, heads: Self.keyHeads, columns: Self.columns)
    var output = results.output.mutableSpan
    let watch = Stopwatch()
    for _ in 0..<Self.calls {
      try context.attend(
        .decode, queries: queries, keys: keys, values: values, workspace: &workspace, into: &output)
    }
    return watch.nanoseconds / Double(Self.calls)
  }

  func callLibrary(
    _ library: LibraryContext, asking: Bool, _ results: inout Results
  ) throws(LongspanError) -> Double {
    func view(_ data: UnsafePointer<Float>?, _ heads: Int) -> lspan_heads {
      lspan_heads(
        data: data, dtype: .f32, token_stride: Int64(heads * Self.columns), head_stride: Int64(Self.columns))
    }
    let row = Self.queryHeads * Self.columns
    var call = lspan_attention()
    call.sequences = 1
    call.query_heads = Int64(Self.queryHeads)
    call.kv_heads = Int64(Self.keyHeads)
    call.head_dim = Int64(Self.columns)
    call.output_token_stride = Int64(row)
    call.output_head_stride = Int64(Self.columns)
    call.scale = 1 / Float(Self.columns).squareRoot()
    call.causal = 1
    // the memory stays where it is as long as this struct is here
    call.queries = queries.span.withUnsafeBufferPointer { view($0.baseAddress, Self.queryHeads) }
    call.keys = keys.span.withUnsafeBufferPointer { view($0.baseAddress, Self.keyHeads) }
    call.values = values.span.withUnsafeBufferPointer { view($0.baseAddress, Self.keyHeads) }
    var output = results.output.mutableSpan
    call.output = output.withUnsafeMutableBufferPointer { $0.baseAddress }
    var scratch = results.scratch.mutableSpan
    let memory = scratch.withUnsafeMutableBufferPointer { UnsafeMutableRawBufferPointer($0) }
    let (status, nanoseconds) = rows.withUnsafeBufferPointer { rows in
      call.query_indptr = rows.baseAddress
      call.kv_indptr = rows.baseAddress
      return Self.time(library.handle, &call, memory, asking)
    }
    try LibraryContext.check(status)
    return nanoseconds
  }

  private static func time(
    _ handle: OpaquePointer, _ call: inout lspan_attention, _ memory: UnsafeMutableRawBufferPointer,
    _ asking: Bool
  ) -> (lspan_status, Double) {
    var bytes = 0
    var status = lspan_attention_decode_workspace_size(handle, &call, &bytes)
    // where that is less than is needed, the call says so
    bytes = min(bytes, memory.count)
    let watch = Stopwatch()
    for _ in 0..<calls where status == .ok {
      if asking { status = lspan_attention_decode_workspace_size(handle, &call, &bytes) }
      if status == .ok { status = lspan_attention_decode(handle, &call, memory.baseAddress, bytes) }
    }
    return (status, watch.nanoseconds / Double(calls))
  }
}
