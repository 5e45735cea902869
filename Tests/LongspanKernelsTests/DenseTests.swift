import Foundation
import LongspanKernels
import Testing

@Suite(.serialized) struct DenseTests {
  private let context: KernelContext

  init() throws {
    context = try KernelContext(threads: 2)
  }

  @Test func normsMatchTheirFormulas() throws {
    let x: [Float] = [3, 4, 0, 1, 1, 1]
    let weight: [Float] = [1, 2, 3]
    var output = [Float](repeating: 0, count: 6)
    var span = output.mutableSpan
    try context.rmsNorm(
      TensorView(x.span, tokens: 2, columns: 3), weight: weight.span, epsilon: 0, into: &span)
    let root = (Float(25) / 3).squareRoot()
    for (a, b) in zip(output, [3 / root, 8 / root, 0, 1, 2, 3]) { #expect(abs(a - b) < 1e-6) }

    var second = output.mutableSpan
    try context.layerNorm(
      TensorView(x.span, tokens: 2, columns: 3), weight: Span(), bias: weight.span, epsilon: 1, into: &second)
    // mean 7/3, variance 26/9 for the first row; a constant second row leaves the bias
    let deviation = (Float(26) / 9 + 1).squareRoot()
    let mean = Float(7) / 3
    for (a, b) in zip(
      output, [(3 - mean) / deviation + 1, (4 - mean) / deviation + 2, -mean / deviation + 3, 1, 2, 3])
    {
      #expect(abs(a - b) < 1e-6)
    }
  }

  @Test(arguments: Activation.allCases) func activationsMatchTheirFormulas(activation: Activation) throws {
    let gate: [Float] = [-3, -0.5, 0, 0.25, 2, 30]
    let up: [Float] = [1, 2, 3, 4, 5, 6]
    var output = [Float](repeating: 0, count: 6)
    var span = output.mutableSpan
    try context.gatedActivation(
      activation, gate: TensorView(gate.span, tokens: 1, columns: 6),
      up: TensorView(up.span, tokens: 1, columns: 6), into: &span)
    for index in 0..<6 {
      let x = Double(gate[index])
      let expected =
        switch activation {
        case .silu: x / (1 + exp(-x))
        case .geluTanh: 0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
        case .geluErf: 0.5 * x * (1 + erf(x / 2.0.squareRoot()))
        }
      #expect(abs(Double(output[index]) - expected * Double(up[index])) < 1e-5 * max(1, abs(expected)))
    }
  }

  @Test(arguments: [RotaryLayout.halves, .interleaved], ElementType.allCases)
  func rotatesEachPairByItsAngle(layout: RotaryLayout, type: ElementType) throws {
    let x: [Float] = [1, 2, 3, 4, 5, 6, 7, 8]
    let table = try RotaryTable(positions: [3], inverseFrequencies: [0.5, 0.1])
    var bytes = [UInt8](repeating: 0, count: 8 * type.byteCount)
    do {
      var span = bytes.mutableSpan
      var output = try MutableTensorView(span.mutableBytes, TensorLayout(type, tokens: 1, columns: 8))
      try context.rotate(TensorView(x.span, tokens: 1, columns: 8), by: table, layout: layout, into: &output)
    }
    let pairs = layout == .halves ? [(0, 2), (1, 3)] : [(0, 1), (2, 3)]
    var expected = x.map(Double.init)
    for (pair, angle) in zip(pairs, [1.5, 0.3]) {
      let (a, b) = (Double(x[pair.0]), Double(x[pair.1]))
      expected[pair.0] = a * cos(angle) - b * sin(angle)
      expected[pair.1] = a * sin(angle) + b * cos(angle)
    }
    let tolerance = type == .f32 ? 1e-6 : type == .f16 ? 5e-3 : 4e-2
    for index in 0..<8 {
      #expect(abs(Double(value(bytes, index, type)) - expected[index]) < tolerance)
    }
  }

  private func value(_ bytes: [UInt8], _ index: Int, _ type: ElementType) -> Float {
    bytes.withUnsafeBytes { raw in
      switch type {
      case .f32: raw.loadUnaligned(fromByteOffset: index * 4, as: Float.self)
      case .f16: Float(raw.loadUnaligned(fromByteOffset: index * 2, as: Float16.self))
      case .bf16:
        Float(bitPattern: UInt32(raw.loadUnaligned(fromByteOffset: index * 2, as: UInt16.self)) << 16)
      }
    }
  }

  @Test func lossesMatchTheSoftmax() throws {
    let logits: [Float] = [0, 0, 0, 0, 1, 2, -.infinity, 3]
    let targets: [Int32] = [2, 1]
    var nll: [Float] = [0, 0]
    var entropy: [Float] = [0, 0]
    var nllSpan = nll.mutableSpan
    var entropySpan = entropy.mutableSpan
    try context.logSoftmaxGather(
      logits: TensorView(logits.span, tokens: 2, columns: 4), targets: targets.span, nll: &nllSpan,
      entropy: &entropySpan)
    let sum = exp(1.0) + exp(2.0) + exp(3.0)
    #expect(abs(Double(nll[0]) - log(4.0)) < 1e-6)
    #expect(abs(Double(nll[1]) - (log(sum) - 2)) < 1e-6)
    let mean = (exp(1.0) + 2 * exp(2.0) + 3 * exp(3.0)) / sum
    #expect(abs(Double(entropy[1]) - (log(sum) - mean)) < 1e-6)
  }

  @Test func productsUseStoredAndDequantizedWeightsAlike() throws {
    var random = SplitMix64(seed: 5)
    let rows = 70
    let columns = 64
    let owner = ByteOwner((0..<rows * columns / 32 * 34).map { $0 % 34 == 1 ? 0x2C : UInt8($0 * 37 & 0xFF) })
    let stored = try WeightMatrix(.q8_0, rows: rows, columns: columns, bytes: owner.bytes, owner: owner)
    let decoded = try stored.dequantized(on: context)
    #expect(stored.ownedByteCount == 0)
    #expect(decoded.ownedByteCount == rows * columns * 4)

    var table = [Float](repeating: 0, count: rows * columns)
    var tableSpan = table.mutableSpan
    let ids = [Int32](0..<Int32(rows))
    try context.embed(ids.span, table: stored, into: &tableSpan)
    for inputs in [1, 5] {
      let x = random.floats(inputs * columns)
      let a = try product(x, inputs, stored, accumulatingTo: 1)
      let b = try product(x, inputs, decoded, accumulatingTo: nil)
      for i in 0..<inputs {
        for m in 0..<rows {
          var expected = 0.0
          for c in 0..<columns { expected += Double(x[i * columns + c]) * Double(table[m * columns + c]) }
          #expect(abs(Double(a[i * rows + m]) - 1 - expected) < 2e-3)
          #expect(abs(Double(b[i * rows + m]) - expected) < 2e-3)
        }
      }
    }
  }

  private func product(
    _ x: [Float], _ inputs: Int, _ weights: WeightMatrix, accumulatingTo start: Float?
  ) throws -> [Float] {
    var output = [Float](repeating: start ?? .nan, count: inputs * weights.rows)
    var workspace = Workspace()
    var span = output.mutableSpan
    try context.linear(
      TensorView(x.span, tokens: inputs, columns: weights.columns), weights, accumulating: start != nil,
      workspace: &workspace, into: &span)
    return output
  }

  @Test func refusesWeightsOfAnotherSize() {
    let owner = ByteOwner([UInt8](repeating: 0, count: 33))
    let error = #expect(throws: LongspanError.self) {
      _ = try WeightMatrix(.q8_0, rows: 1, columns: 32, bytes: owner.bytes, owner: owner)
    }
    #expect(error?.message.contains("34 bytes, not 33") == true)
    let odd = #expect(throws: LongspanError.self) {
      _ = try WeightMatrix(.q4_K, rows: 1, columns: 32, bytes: owner.bytes, owner: owner)
    }
    #expect(odd?.message.contains("whole blocks of 256") == true)
  }

  @Test func refusesAnIdOutsideTheTable() throws {
    let owner = ByteOwner([UInt8](repeating: 0, count: 64))
    let table = try WeightMatrix(.f32, rows: 4, columns: 4, bytes: owner.bytes, owner: owner)
    for id in [-1, 4] as [Int32] {
      var output: [Float] = [9, 9, 9, 9]
      let ids = [id]
      let error = #expect(throws: LongspanError.self) {
        var span = output.mutableSpan
        try context.embed(ids.span, table: table, into: &span)
      }
      #expect(error?.code == .badIndex)
      #expect(output == [9, 9, 9, 9])
    }
  }

  @Test func viewsMustLieInTheirMemory() {
    let floats = [Float](repeating: 0, count: 10)
    for layout in [
      TensorLayout(tokens: 11, columns: 1), TensorLayout(tokens: 2, columns: 6),
      TensorLayout(tokens: 2, columns: 2, tokenStride: 9),
      TensorLayout(tokens: Int.max, heads: 3, columns: 8),
      TensorLayout(tokens: -1, columns: 1), TensorLayout(tokens: 1, columns: 1, tokenStride: -1),
      TensorLayout(tokens: 2, heads: 2, columns: 1, headStride: Int.max),
    ] {
      #expect(throws: LongspanError.self) { _ = try TensorView(floats.span.bytes, layout) }
    }
    #expect(throws: Never.self) {
      _ = try TensorView(floats.span.bytes, TensorLayout(tokens: 2, columns: 1, tokenStride: 9))
    }
  }
}
