import LongspanKernels
import LongspanModels

/// Perplexity by position in the window, as an SVG line over a linear axis from 0.
struct PerplexityPlot {
  let curve: [PerplexityReport.Bucket]
  let title: String

  private static let width = 720.0
  private static let height = 360.0
  private static let left = 64.0
  private static let right = 16.0
  private static let top = 40.0
  private static let bottom = 48.0

  func write(to path: String) throws(LongspanError) {
    try OutputFile.write(svg, to: path)
  }

  var svg: String {
    let end = Double(curve.last?.end ?? 1)
    let highest = Self.niceCeiling(curve.map(\.perplexity).max() ?? 1)
    func x(_ position: Double) -> Double {
      Self.left + position / end * (Self.width - Self.left - Self.right)
    }
    func y(_ value: Double) -> Double {
      Self.height - Self.bottom - value / highest * (Self.height - Self.top - Self.bottom)
    }
    var parts = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Int(Self.width)) \(Int(Self.height))\" "
        + "font-family=\"sans-serif\" font-size=\"12\">",
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
      "<text x=\"\(Self.left)\" y=\"22\" font-size=\"15\">\(title.escapedForXML)</text>",
    ]
    for step in 0...4 {
      let value = highest * Double(step) / 4
      let position = end * Double(step) / 4
      parts.append(
        "<line x1=\"\(Self.left)\" x2=\"\(Self.width - Self.right)\" y1=\"\(y(value))\" y2=\"\(y(value))\" "
          + "stroke=\"#ddd\"/>")
      parts.append(
        "<text x=\"\(Self.left - 8)\" y=\"\(y(value) + 4)\" text-anchor=\"end\">\(decimal(value, 0))</text>")
      parts.append(
        "<text x=\"\(x(position))\" y=\"\(Self.height - Self.bottom + 18)\" text-anchor=\"middle\">"
          + "\(Int(position))</text>")
    }
    let points = curve.map { bucket in
      "\(decimal(x(Double(bucket.first + bucket.end) / 2), 1)),\(decimal(y(bucket.perplexity), 1))"
    }
    parts.append(
      "<polyline fill=\"none\" stroke=\"#1f77b4\" stroke-width=\"2\" points=\"\(points.joined(separator: " "))\"/>"
    )
    parts.append(
      "<text x=\"\(Self.width / 2)\" y=\"\(Self.height - 10)\" text-anchor=\"middle\">position in the window</text>"
    )
    parts.append(
      "<text x=\"16\" y=\"\(Self.height / 2)\" text-anchor=\"middle\" "
        + "transform=\"rotate(-90 16 \(Self.height / 2))\">perplexity</text>")
    return (parts + ["</svg>"]).joined(separator: "\n") + "\n"
  }

  /// The least of 1, 2, 4, 5 or 8 times a power of ten that is not below the value.
  private static func niceCeiling(_ value: Double) -> Double {
    var scale = 1.0
    while scale * 10 < value { scale *= 10 }
    return [1, 2, 4, 5, 8, 10].map { $0 * scale }.first { $0 >= value } ?? value
  }
}
