import LongspanKernels
import Testing

@Suite struct KernelProfileTests {
  private let input = [Float](repeating: 1, count: 64)

  private func normalize(_ context: KernelContext, rows: Int) throws {
    var output = [Float](repeating: 0, count: rows * 8)
    var span = output.mutableSpan
    let layout = TensorLayout(tokens: rows, columns: 8)
    try context.rmsNorm(
      TensorView(input.span.extracting(0..<rows * 8).bytes, layout), weight: [Float]().span, epsilon: 1e-5,
      into: &span)
  }

  @Test func recordsCallsWithTheirTagsAndCosts() throws {
    let context = try KernelContext(threads: 1)
    try normalize(context, rows: 1)
    let profile = try KernelProfile(of: context, capacity: 2)
    let before = KernelProfile.clock
    KernelProfile.setTag(5)
    try normalize(context, rows: 3)
    KernelProfile.setTag(-1)
    try normalize(context, rows: 1)
    try normalize(context, rows: 1)
    let recording = profile.stop()
    try normalize(context, rows: 1)

    #expect(recording.calls.map(\.tag) == [5, -1])
    #expect(recording.calls.map(\.bytes) == [3 * 8 * 8, 8 * 8])
    #expect(recording.calls.map(\.flops) == [3 * 8 * 3, 8 * 3])
    for call in recording.calls {
      #expect(call.kernel == .rmsNorm && call.name == "rms_norm" && call.elementType == .f32)
      #expect(call.exponentials == 0 && call.start >= before && call.nanoseconds >= 0)
    }
    #expect(recording.lostCalls == 1)
    #expect(recording.totals.count == 1)
    let totals = try #require(recording.totals.first)
    #expect(totals.kernel == .rmsNorm && totals.calls == 3 && totals.bytes == 5 * 8 * 8)
  }

  @Test func aContextHasOneProfileAtATime() throws {
    let context = try KernelContext(threads: 1)
    let first = try KernelProfile(of: context, capacity: 0)
    let error = #expect(throws: LongspanError.self) { _ = try KernelProfile(of: context, capacity: 0) }
    #expect(error?.code == .badValue && error?.message.contains("already") == true)
    #expect(first.stop().calls.isEmpty)
    // one that is dropped ends too
    _ = try KernelProfile(of: context, capacity: 8)
    let last = try KernelProfile(of: context, capacity: 8)
    try normalize(context, rows: 2)
    #expect(last.stop().calls.count == 1)
  }

  @Test func aNegativeCapacityIsRefused() throws {
    let context = try KernelContext(threads: 1)
    let error = #expect(throws: LongspanError.self) { _ = try KernelProfile(of: context, capacity: -1) }
    #expect(error?.code == .badValue)
  }

  @Test func everyKernelHasAName() {
    for kernel in [
      ProfiledKernel.attentionPrefill, .attentionDecode, .attentionMerge, .rope, .convert, .rmsNorm,
      .layerNorm, .gatedActivation, .logSoftmaxGather, .embedding, .linear, .dequantize, .lagScores, .select,
      .compact, .ropeShift, .sparsePrefill, .sparseDecode, .lagPrefill,
      .selectiveScan, .selectiveUpdate, .ssdScan, .ssdUpdate, .causalConv, .gatedRMSNorm, .dtSteps, .product,
    ] {
      #expect(kernel.name != "unknown")
    }
    #expect(ProfiledKernel(rawValue: 999).name == "unknown")
  }
}
