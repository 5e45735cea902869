import LongspanKernels
import Testing

/// Attention by its definition, in double precision, over contiguous `[tokens, heads, D]` arrays.
private func reference(
  q: [Float], k: [Float], v: [Float], queries: Int, keys: Int, heads: Int, keyHeads: Int, d: Int,
  mask: AttentionMask
) -> (output: [Double], logSumExp: [Double]) {
  var output = [Double](repeating: 0, count: queries * heads * d)
  var logSumExp = [Double](repeating: -.infinity, count: queries * heads)
  for i in 0..<queries {
    let position = keys - queries + i
    for h in 0..<heads {
      let g = h / (heads / keyHeads)
      var weights: [(Int, Double)] = []
      for j in 0..<keys {
        if mask.isCausal, j > position { continue }
        if let window = mask.window, j <= position - window, j >= mask.sinks { continue }
        var dot = 0.0
        for c in 0..<d { dot += Double(q[(i * heads + h) * d + c]) * Double(k[(j * keyHeads + g) * d + c]) }
        weights.append((j, dot / Double(d).squareRoot()))
      }
      guard let highest = weights.map(\.1).max() else { continue }
      let sum = weights.reduce(0.0) { $0 + exp($1.1 - highest) }
      logSumExp[i * heads + h] = highest + log(sum)
      for (j, s) in weights {
        for c in 0..<d {
          output[(i * heads + h) * d + c] += exp(s - highest) / sum * Double(v[(j * keyHeads + g) * d + c])
        }
      }
    }
  }
  return (output, logSumExp)
}

@Suite(.serialized) struct AttentionTests {
  private static let masks = [
    AttentionMask.causal, .full, AttentionMask(window: 5), AttentionMask(window: 3, sinks: 2),
    AttentionMask(isCausal: false, window: 4),
  ]

  @Test(arguments: KernelContext.variants.filter(\.isSupported).map(\.name), masks)
  func matchesTheDefinition(isa: String, mask: AttentionMask) throws {
    let context = try KernelContext(threads: 2, isa: isa)
    var random = SplitMix64(seed: 11)
    for (queries, keys, heads, keyHeads, d) in [
      (7, 19, 6, 2, 24), (3, 3, 4, 4, 8), (5, 2, 3, 1, 16), (4, 0, 2, 1, 8),
    ] {
      let q = random.floats(queries * heads * d)
      let k = random.floats(keys * keyHeads * d)
      let v = random.floats(keys * keyHeads * d)
      let expected = reference(
        q: q, k: k, v: v, queries: queries, keys: keys, heads: heads, keyHeads: keyHeads, d: d, mask: mask)
      for method in [AttentionMethod.prefill, .decode] {
        var workspace = Workspace()
        var output = [Float](repeating: .nan, count: queries * heads * d)
        var logSumExp = [Float](repeating: .nan, count: queries * heads)
        var outputSpan = output.mutableSpan
        var logSumExpSpan = logSumExp.mutableSpan
        try context.attend(
          method, queries: TensorView(q.span, tokens: queries, heads: heads, columns: d),
          keys: TensorView(k.span, tokens: keys, heads: keyHeads, columns: d),
          values: TensorView(v.span, tokens: keys, heads: keyHeads, columns: d),
          options: AttentionOptions(mask: mask), workspace: &workspace, into: &outputSpan,
          logSumExp: &logSumExpSpan)
        for (a, b) in zip(output, expected.output) { #expect(abs(Double(a) - b) < 2e-6) }
        for (a, b) in zip(logSumExp, expected.logSumExp) {
          #expect(b == -.infinity ? a == -.infinity : abs(Double(a) - b) < 4e-6)
        }
      }
    }
  }

  @Test func mergesPartsIntoTheWhole() throws {
    let context = try KernelContext(threads: 1)
    var output = [Float](repeating: .nan, count: 4)
    var logSumExp = [Float](repeating: .nan, count: 2)
    var outputSpan = output.mutableSpan
    var logSumExpSpan = logSumExp.mutableSpan
    // weights 1 and 3 for the first row; nothing at all for the second
    let outputs: [Float] = [1, 2, 0, 0, 5, 6, 0, 0]
    let parts: [Float] = [0, -.infinity, Float(log(3.0)), -.infinity]
    try context.mergeAttention(
      parts: 2, rows: 2, headDimension: 2, outputs: outputs.span, logSumExps: parts.span, into: &outputSpan,
      logSumExp: &logSumExpSpan)
    #expect(zip(output, [4, 5, 0, 0] as [Float]).allSatisfy { abs($0 - $1) < 1e-5 })
    #expect(abs(logSumExp[0] - Float(log(4.0))) < 1e-6)
    #expect(logSumExp[1] == -.infinity)
  }

  /// Calls attention with one thing wrong and returns the error.
  private func failure(
    columns: Int = 8, keyHeads: Int = 1, keyColumns: Int = 8, outputCount: Int = 64, window: Int? = nil,
    scale: Float? = nil, method: AttentionMethod = .prefill, batch: RaggedBatch? = nil
  ) throws -> LongspanError? {
    let context = try KernelContext(threads: 1)
    let floats = [Float](repeating: 0, count: 1024)
    var output = [Float](repeating: 7, count: outputCount)
    var workspace = Workspace()
    let error = #expect(throws: LongspanError.self) {
      var span = output.mutableSpan
      try context.attend(
        method, queries: TensorView(floats.span, tokens: 9, heads: 2, columns: columns),
        keys: TensorView(floats.span, tokens: 9, heads: keyHeads, columns: keyColumns),
        values: TensorView(floats.span, tokens: 9, heads: keyHeads, columns: keyColumns), batch: batch,
        options: AttentionOptions(scale: scale, mask: AttentionMask(window: window)), workspace: &workspace,
        into: &span)
    }
    #expect(output.allSatisfy { $0 == 7 }, "nothing may be written")
    return error
  }

  @Test func refusesWhatDoesNotFitAndWritesNothing() throws {
    #expect(try failure(columns: 12, keyColumns: 12, outputCount: 216)?.code == .badShape)
    #expect(try failure(keyColumns: 16, outputCount: 144)?.message.contains("head dimensions 8, 16") == true)
    #expect(try failure(keyHeads: 3, outputCount: 144)?.code == .badShape)
    #expect(try failure(outputCount: 143)?.message.contains("output: 144 elements") == true)
    #expect(try failure(outputCount: 144, window: 0)?.code == .badValue)
    #expect(try failure(outputCount: 144, scale: .nan)?.code == .badValue)
    #expect(try failure(outputCount: 144, method: .decode)?.code == .badShape)
    let batch = RaggedBatch(queryOffsets: [0, 10, 9], keyOffsets: [0, 3, 9])
    #expect(try failure(outputCount: 144, batch: batch)?.code == .badIndex)
    let short = RaggedBatch(queryOffsets: [0, 8], keyOffsets: [0, 9])
    #expect(try failure(outputCount: 144, batch: short)?.message.contains("9 query tokens") == true)
  }
}
